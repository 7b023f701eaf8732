"""What is to be, from what is wanted and what was seen. Pure: no I/O, no clock, no chance."""
