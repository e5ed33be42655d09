# A folder that becomes one archive: NAME.a from SOURCES.
OBJECTS = $(SOURCES:.c=.o)

$(NAME).a: $(OBJECTS)
	rm -f $@
	$(AR) $(ARFLAGS) $@ $(OBJECTS)

clean:
	rm -f $(NAME).a *.o *.d

.PHONY: clean
-include $(SOURCES:.c=.d)
