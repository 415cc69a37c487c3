"""The portal: who exists, who may reach what, and who is told so. It carries no traffic."""
