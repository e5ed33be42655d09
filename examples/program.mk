# A folder that becomes one program: NAME from SOURCES and the archives of LIBS, dependants first.
OBJECTS = $(SOURCES:.c=.o)
ARCHIVES = $(foreach lib,$(LIBS),$(TOP)/lib/$(lib)/$(lib).a)

$(NAME): $(OBJECTS) $(ARCHIVES)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(OBJECTS) $(ARCHIVES) -lm

clean:
	rm -f $(NAME) *.o *.d

.PHONY: clean
-include $(SOURCES:.c=.d)
