"""One published layout a file, each read into tables by split; ``formats`` knows them all."""
