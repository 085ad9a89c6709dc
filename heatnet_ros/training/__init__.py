"""Networks, losses, training loops and export. Needs torch; never imported at run time."""
