# What every folder's makefile shares. TOP is the way from that folder to this one.
CFLAGS = -O2 -g
WARNINGS = -std=c11 -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes
ARFLAGS = rcsD

COMPILE = $(CC) $(CPPFLAGS) -I$(TOP)/lib -I$(TOP)/gen $(CFLAGS) $(WARNINGS) -MMD -MP -c

%.o: %.c
	$(COMPILE) -o $@ $<
