"""Pure renderings of what a program knows: rich text in, no input or output, no clock."""
