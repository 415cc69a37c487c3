"""How the screen looks. The terminal's own colours and background, so that it suits whoever chose them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from textual.theme import BUILTIN_THEMES

THEME: Final = replace(
    BUILTIN_THEMES["ansi-dark"], name="exeunt", primary="ansi_cyan", secondary="ansi_blue", accent="ansi_cyan"
)

NARROW: Final = 100
"""Below so many columns the tree gives way, and panes have a line on top instead of a frame."""

CSS: Final = """
Main { layout: vertical; }
#head { height: 2; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
#panes { height: 1fr; }
#column { width: 1fr; }
#tree { width: 30%; min-width: 26; max-width: 44; }
#tree.alone { width: 1fr; max-width: 100%; }
#actors { height: 2fr; min-height: 3; }
#peers { height: 1fr; }
#events { height: 1fr; min-height: 2; }
Listing {
    scrollbar-size: 1 1; overflow-x: hidden;
    scrollbar-color: ansi_bright_black; scrollbar-color-hover: ansi_cyan; scrollbar-color-active: ansi_cyan;
    scrollbar-background: ansi_default; scrollbar-background-hover: ansi_default;
    scrollbar-background-active: ansi_default;
    border-title-style: none;
}
Main Listing { border: round ansi_bright_black; padding: 0 1; border-title-color: ansi_default; }
Main Listing:focus { border: round ansi_cyan; border-title-color: ansi_cyan; border-title-style: bold; }
Main.-narrow Listing { border: none; border-top: solid ansi_bright_black; }
Main.-narrow Listing:focus { border: none; border-top: solid ansi_cyan; }
#prompt { height: 1; padding: 0 1; }
#keys { width: 1fr; height: 1; }
#sign { width: 1; height: 1; }
#line { width: 1fr; height: 1; border: none; padding: 0; }
.page-title { height: 1; padding: 0 1; margin-bottom: 1; }
.page-body { height: 1fr; padding: 0 1; scrollbar-size: 1 1; scrollbar-color: ansi_bright_black; }
.page-foot { height: 1; padding: 0 1; }
#traces { height: 1fr; padding: 0 1; }
Question { align: center middle; }
#question { width: 64; max-width: 100%; height: auto; border: round ansi_yellow; padding: 1 2 0 2; }
#question Static { margin-bottom: 1; }
"""
