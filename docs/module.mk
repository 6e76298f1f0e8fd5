# docs/: what `make install` puts beside the command.
MAN1 := $(wildcard docs/*.1)
DOCS := README.md LICENSE $(wildcard docs/*.md)
