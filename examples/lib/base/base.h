/* Memory, growing strings and vectors, files. Out of memory ends the program: no caller could go on. */
#ifndef TALLY_BASE_H
#define TALLY_BASE_H

#include <stddef.h>

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *must_alloc(size_t size);
void *must_grow(void *block, size_t count, size_t size);
char *must_copy(const char *text, size_t length);

struct strbuf {
    char *text; /* always ends in NUL once something was added */
    size_t length, room;
};

void strbuf_add(struct strbuf *buf, const char *bytes, size_t count);
void strbuf_puts(struct strbuf *buf, const char *text);
void strbuf_putc(struct strbuf *buf, char c);
void strbuf_pad(struct strbuf *buf, char c, size_t count);
void strbuf_printf(struct strbuf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void strbuf_free(struct strbuf *buf);

struct vector {
    double *at;
    size_t count, room;
};

void vector_push(struct vector *v, double value);
void vector_sort(struct vector *v);
void vector_free(struct vector *v);

/* The whole of a file, or of standard input when path is "-"; NULL with errno set when it cannot be read. */
char *read_file(const char *path, size_t *length);

#endif
