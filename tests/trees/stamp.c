/* What recipes of traced builds run: a line when they start, and one when they end.
 *
 *   stamp work NAME OUT SECONDS burn|sleep STATUS    is a recipe: it takes its time, writes OUT, ends with STATUS
 *   stamp --stamp TARGET NEEDS -c COMMAND            is make's SHELL: it runs COMMAND under $STAMP_SHELL (/bin/sh)
 *
 * Each line is one write to a file opened for appending ($STAMP_LOG; $STAMP_SHELL_LOG for the second way; none is
 * written where that is not set). Times are CLOCK_BOOTTIME, in ns: the kernel's, so containers of one machine share
 * it, and d1fleet's own record uses it too. SECONDS of burn are of CPU time: a quota makes them longer. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 3500, FIELD = 2000 }; /* below PIPE_BUF */

static long long now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void say(const char *log, const char *format, ...)
{
    char line[LINE];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(line, sizeof line - 1, format, list);
    va_end(list);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    int fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, line, length) != length) {
        perror(log);
        exit(125);
    }
    close(fd);
}

/* One field of a line: without tabs and newlines, cut where it is too long. */
static const char *field(const char *text, char *into, size_t size)
{
    size_t used = 0;
    for (; *text && used + 1 < size; text++)
        into[used++] = *text == '\t' || *text == '\n' ? ' ' : *text;
    into[used] = 0;
    return into;
}

static char id[160];

static void begin(const char *log, const char *target, const char *needs, const char *command)
{
    char host[64] = "", folder[512] = "", f1[256], f2[FIELD], f3[200], f4[512];
    const char *named = getenv("STAMP_HOST"), *parent = getenv("STAMP_PARENT"), *level = getenv("MAKELEVEL");
    if (named)
        snprintf(host, sizeof host, "%s", named);
    else
        gethostname(host, sizeof host - 1);
    if (!getcwd(folder, sizeof folder))
        strcpy(folder, "?");
    long long start = now_ns(CLOCK_BOOTTIME);
    snprintf(id, sizeof id, "%s:%d:%lld", host, (int)getpid(), start);
    /* The longest field goes last: what is cut off is its end. */
    say(log, "+\t%s\t%s\t%s\t%d\t%d\t%d\t%lld\t%s\t%s\t%s\t%s", id, parent && *parent ? parent : "-", host,
        (int)getpid(), (int)getppid(), level ? atoi(level) - 1 : 0, start, field(folder, f4, sizeof f4),
        field(target, f1, sizeof f1), field(command, f3, sizeof f3), field(needs, f2, sizeof f2));
}

static void finish(const char *log, int status, int who)
{
    struct rusage used;
    getrusage(who, &used);
    long long cpu = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL + used.ru_utime.tv_usec +
                    used.ru_stime.tv_usec;
    say(log, "-\t%s\t%lld\t%d\t%lld", id, now_ns(CLOCK_BOOTTIME), status, cpu * 1000);
}

static int work(char **argv)
{
    const char *log = getenv("STAMP_LOG");
    double seconds = atof(argv[4]);
    int status = atoi(argv[6]);
    if (log)
        begin(log, argv[2], "", argv[2]);
    long long length = seconds * 1e9;
    if (strcmp(argv[5], "burn") == 0) {
        while (now_ns(CLOCK_PROCESS_CPUTIME_ID) < length)
            for (volatile int i = 0; i < 20000; i++)
                ;
    } else {
        struct timespec t = {length / 1000000000LL, length % 1000000000LL};
        while (nanosleep(&t, &t))
            ;
    }
    if (!status) {
        FILE *out = fopen(argv[3], "w");
        if (!out || fprintf(out, "%s\n", argv[2]) < 0 || fclose(out)) {
            perror(argv[3]);
            return 125;
        }
    }
    if (log)
        finish(log, status, RUSAGE_SELF);
    return status;
}

static pid_t child;

static void pass_on(int number)
{
    kill(child, number);
}

static int shell(int argc, char **argv)
{
    const char *log = getenv("STAMP_SHELL_LOG"), *program = getenv("STAMP_SHELL");
    if (!program)
        program = "/bin/sh";
    /* Programs that run $(SHELL) themselves give it other words; $(shell) has no target. */
    int ours = argc == 6 && strcmp(argv[1], "--stamp") == 0, status;
    const char *needs = ours ? argv[3] : "";
    char **words = argv + (ours ? 3 : 0);
    words[0] = (char *)program;
    if (!ours || !log || !*argv[2]) {
        execv(program, words);
        perror(program);
        return 127;
    }
    begin(log, argv[2], needs, argv[5]);
    setenv("STAMP_PARENT", id, 1);
    child = fork();
    if (child == 0) {
        execv(program, words);
        perror(program);
        _exit(127);
    }
    signal(SIGTERM, pass_on);
    signal(SIGINT, SIG_IGN); /* the terminal's goes to both */
    while (waitpid(child, &status, 0) < 0)
        ;
    int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    finish(log, code, RUSAGE_CHILDREN);
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        kill(getpid(), WTERMSIG(status));
    }
    return code;
}

int main(int argc, char **argv)
{
    if (argc == 7 && strcmp(argv[1], "work") == 0)
        return work(argv);
    return shell(argc, argv);
}
