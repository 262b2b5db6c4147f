"""This host brings no guidance; extensions register theirs."""
