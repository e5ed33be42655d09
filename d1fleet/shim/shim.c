/* What the recipes of a build find as `make`.

   Inside a build it hands the whole call (arguments, folder, environment, umask, limits, ignored signals, open
   files) to the coordinator at D1FLEET_SOCKET and ends as the remote make ended. Outside a build, and where a
   remote make could not do the same, it is the real make. It runs once for every sub-make, so it stays
   small: no stdio, one allocation. standin.py keeps the same contract without a compiler; change them together.

   The environment of a build:
     D1FLEET_SOCKET  the coordinator's unix stream socket
     D1FLEET_MAKE    the real make, absolute
     D1FLEET_ORIGIN  uid:dev:ino:mnt of the process that started it: effective uid, "/", mount namespace
     D1FLEET_LEVEL   in a build of any program: MAKELEVEL of the makes that the program starts itself

   A folder with a file `.d1fleet-shim` holds shims and is passed over in the search for the real make: two
   shims, of two builds or versions, can never execute each other in turn. */

#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    EXIT_GONE = 88,     /* d1fleet/errors.py: JobLostError */
    EXIT_NO_MAKE = 127, /* as a shell says it */
    SAME_FILE = 1, FD_OPEN = 2, JOBSERVER = 16, /* FD_OPEN << n for fd n */
    LIMITS = 16, /* RLIMIT_CPU to RLIMIT_RTTIME */
    SIGNALS = 64,
    REPLY = 5,
    MAX_FDS = 5
};

#define MARKER ".d1fleet-shim"

static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
enum { FORWARDED = sizeof forwarded / sizeof *forwarded };
static volatile sig_atomic_t arrived[FORWARDED];

static bool is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

/* Our own socket may have got a closed stderr's number, hence `stderr_open` is asked once, at the start. */
static bool stderr_open;

static void say(const char *before, const char *name, const char *after)
{
    const char *parts[] = {"d1fleet: ", before, name, after, "\n"};
    struct iovec iov[5];
    for (int i = 0; i < 5; i++)
        iov[i] = (struct iovec){(void *)parts[i], strlen(parts[i])};
    if (stderr_open && writev(2, iov, 5) < 0)
        return; /* nobody is left to be told */
}

/* ---- the real make ---- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool is_this_program(const char *path)
{
    struct stat us, it;
    return stat("/proc/self/exe", &us) == 0 && stat(path, &it) == 0 && us.st_dev == it.st_dev
        && us.st_ino == it.st_ino;
}

/* Executes the first `name` in PATH that is no shim; returns if there is none. */
static void exec_next(const char *name, char **argv)
{
    const char *path = getenv("PATH");
    char file[PATH_MAX];
    if (!path)
        path = "/usr/local/bin:/usr/bin:/bin";
    for (;;) {
        size_t length = strcspn(path, ":");
        if (length + 1 + strlen(name) + sizeof MARKER < sizeof file) {
            char *end = file + length;
            memcpy(file, path, length);
            if (length > 0)
                *end++ = '/';
            strcpy(end, MARKER);
            if (access(file, F_OK) != 0) {
                strcpy(end, name);
                if (!is_this_program(file))
                    execv(file, argv);
            }
        }
        path += length;
        if (*path++ == '\0')
            return;
    }
}

/* PATH stays as it is: the sub-makes of this make must meet the shim again. */
static _Noreturn void run_make(char **argv)
{
    const char *name = base_name(argv[0]);
    const char *real = getenv("D1FLEET_MAKE");
    if (!real || strcmp(name, "make") != 0)
        exec_next(name, argv);
    if (real && !is_this_program(real)) {
        execv(real, argv);
        say(real, ": ", strerror(errno));
    } else {
        exec_next("make", argv);
        say("no ", name, " in PATH but the one of d1fleet itself");
    }
    _exit(EXIT_NO_MAKE);
}

static const char *filled(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* Another user, root or mount namespace (sudo, fakechroot, a container) is not what the hosts have. */
static bool at_origin(void)
{
    const char *text = getenv("D1FLEET_ORIGIN");
    struct stat root, mnt;
    if (!text || stat("/", &root) != 0 || stat("/proc/self/ns/mnt", &mnt) != 0)
        return false;
    const uint64_t here[] = {geteuid(), root.st_dev, root.st_ino, mnt.st_ino};
    for (int i = 0; i < 4; i++) {
        char *end;
        if (strtoull(text, &end, 10) != here[i] || end == text || *end != (i < 3 ? ':' : '\0'))
            return false;
        text = end + 1;
    }
    return true;
}

/* A program's own make is what the make of `d1fleet build` is: it runs here, and its sub-makes are jobs. */
static bool is_top_make(void)
{
    const char *top = getenv("D1FLEET_LEVEL"), *level = filled("MAKELEVEL");
    return top && strcmp(level ? level : "0", top) == 0;
}

/* MAKE_RESTARTS: a make that executes itself again after it remade a makefile is the same job, not a new one.
   MAKE in the environment is what $(MAKE) will be; the same word as ours (`export MAKE`) changes nothing. */
static bool must_stay_here(const char *called)
{
    const char *make = getenv("MAKE");
    return getenv("MAKE_RESTARTS") || filled("FAKEROOTKEY") || filled("LD_PRELOAD")
        || (make && strcmp(make, called) != 0) || is_top_make() || !at_origin();
}

/* ---- the request ---- */

/* One terminal, pipe or socket is one stream however often it was opened; a regular file has an offset for each
   open file description, so there only the same description counts. */
static bool same_stream(int a, int b)
{
    struct stat sa, sb;
    if (fstat(a, &sa) != 0 || fstat(b, &sb) != 0 || sa.st_dev != sb.st_dev || sa.st_ino != sb.st_ino)
        return false;
    if (!S_ISREG(sa.st_mode))
        return true;
    if (fcntl(a, F_GETFL) & fcntl(b, F_GETFL) & O_APPEND)
        return true; /* there is no offset of their own */
#ifdef SYS_kcmp
    long order = syscall(SYS_kcmp, getpid(), getpid(), 0 /* KCMP_FILE */, a, b);
    if (order >= 0)
        return order == 0;
#endif
    return lseek(a, 0, SEEK_CUR) == lseek(b, 0, SEEK_CUR) && fcntl(a, F_GETFL) == fcntl(b, F_GETFL);
}

static bool is_pipe(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

/* The pair of the last --jobserver-auth=R,W before `--`, if both are open; make too takes the last one. */
static bool jobserver(int pair[2])
{
    static const char *const options[] = {"--jobserver-auth=", "--jobserver-fds="};
    const char *at = getenv("MAKEFLAGS");
    bool found = false;
    while (at && *(at += strspn(at, " \t"))) {
        size_t length = 0;
        while (at[length] && !strchr(" \t", at[length]))
            length += at[length] == '\\' && at[length + 1] ? 2 : 1;
        if (length == 2 && strncmp(at, "--", 2) == 0)
            break;
        for (int i = 0; i < 2; i++) {
            size_t skip = strlen(options[i]);
            if (length <= skip || strncmp(at, options[i], skip) != 0)
                continue;
            char *comma, *end = NULL;
            long r = strtol(at + skip, &comma, 10), w = *comma == ',' ? strtol(comma + 1, &end, 10) : -1;
            found = end == at + length && end > comma + 1 && r >= 0 && w >= 0 && r <= INT_MAX && w <= INT_MAX;
            pair[0] = (int)r;
            pair[1] = (int)w;
        }
        at += length;
    }
    return found && is_pipe(pair[0]) && is_pipe(pair[1]);
}

static unsigned char *put(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--, value >>= 8)
        at[i] = (unsigned char)value;
    return at + bytes;
}

static size_t block_size(char **strings)
{
    size_t size = 0;
    for (; *strings; strings++)
        size += strlen(*strings) + 1;
    return size;
}

static unsigned char *put_block(unsigned char *at, char **strings)
{
    for (; *strings; strings++)
        at = (unsigned char *)stpcpy((char *)at, *strings) + 1;
    return at;
}

static uint64_t ignored_signals(void)
{
    struct sigaction action;
    uint64_t mask = 0;
    for (int n = 1; n <= SIGNALS; n++)
        if (sigaction(n, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            mask |= UINT64_C(1) << (n - 1);
    return mask;
}

/* The request without its fds; NULL when there is no memory for it. */
static unsigned char *request(uint32_t flags, int argc, char **argv, const char *cwd, size_t *size)
{
    size_t argv_size = block_size(argv), cwd_size = strlen(cwd), env_size = block_size(environ);
    unsigned char *start = malloc(4 + 20 + 4 + LIMITS * 12 + 16 + argv_size + cwd_size + env_size);
    if (!start)
        return NULL;
    mode_t mask = umask(0);
    umask(mask);
    unsigned char *at = start + 4;
    memcpy(at, "D1S1", 4);
    at = put(at + 4, flags, 4);
    at = put(at, mask, 4);
    at = put(at, ignored_signals(), 8);
    unsigned char *count = at;
    at += 4;
    for (unsigned i = 0; i < LIMITS; i++) {
        struct rlimit limit;
        if (getrlimit(i, &limit) == 0)
            at = put(put(at, i, 4), limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur, 8);
    }
    put(count, (uint64_t)(at - count - 4) / 12, 4);
    at = put(at, (uint64_t)argc, 4);
    at = put(at, argv_size, 4);
    at = put(at, cwd_size, 4);
    at = put(at, env_size, 4);
    at = put_block(at, argv);
    memcpy(at, cwd, cwd_size);
    at = put_block(at + cwd_size, environ);
    *size = (size_t)(at - start);
    put(start, *size - 4, 4);
    return start;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sock < 0 || strlen(path) >= sizeof address.sun_path)
        return -1;
    strcpy(address.sun_path, path);
    while (connect(sock, (struct sockaddr *)&address, sizeof address) != 0)
        if (errno != EINTR)
            return -1;
    return sock;
}

static bool send_all(int sock, const unsigned char *data, size_t size, const int *fds, int count)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(MAX_FDS * sizeof(int))];
    } control = {.space = {0}};
    while (size > 0) {
        struct iovec iov = {(void *)data, size};
        struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
        if (count > 0) {
            message.msg_control = &control;
            message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
            control.header.cmsg_level = SOL_SOCKET;
            control.header.cmsg_type = SCM_RIGHTS;
            control.header.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
            memcpy(CMSG_DATA(&control.header), fds, (size_t)count * sizeof(int));
        }
        ssize_t sent = sendmsg(sock, &message, MSG_NOSIGNAL);
        if (sent >= 0) {
            count = 0; /* they went with the first byte */
            data += sent;
            size -= (size_t)sent;
        } else if (errno == ETOOMANYREFS) {
            /* Too many fds of this user are on their way: wait for the coordinator to take some. */
            struct pollfd hang_up = {sock, 0, 0};
            if (poll(&hang_up, 1, 5) > 0)
                return false;
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

/* ---- the answer ---- */

static void note(int signal_number)
{
    for (int i = 0; i < FORWARDED; i++)
        if (forwarded[i] == signal_number)
            arrived[i] = 1;
}

/* From here on they are let through in ppoll alone: none can fall between a look and a wait. */
static void catch_signals(sigset_t *before)
{
    struct sigaction action, old;
    sigset_t ours;
    memset(&action, 0, sizeof action);
    action.sa_handler = note;
    sigemptyset(&ours);
    for (int i = 0; i < FORWARDED; i++)
        sigaddset(&ours, forwarded[i]);
    sigprocmask(SIG_BLOCK, &ours, before);
    for (int i = 0; i < FORWARDED; i++)
        if (sigaction(forwarded[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(forwarded[i], &action, NULL);
}

static _Noreturn void die_of(int signal_number)
{
    struct rlimit none = {0, 0};
    sigset_t one;
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0); /* a core that is piped to a program heeds no limit */
    signal(signal_number, SIG_DFL);
    sigemptyset(&one);
    sigaddset(&one, signal_number);
    raise(signal_number);
    sigprocmask(SIG_UNBLOCK, &one, NULL);
    _exit(128 + signal_number);
}

/* Passes signals on until the answer is whole. Gives the last signal passed on, 0 if none, -1 without an answer. */
static int wait_for_reply(int sock, unsigned char reply[REPLY], const sigset_t *before)
{
    int passed = 0;
    for (size_t got = 0; got < REPLY;) {
        struct pollfd readable = {sock, POLLIN, 0};
        for (int i = 0; i < FORWARDED; i++) {
            unsigned char byte = (unsigned char)forwarded[i];
            if (!arrived[i])
                continue;
            arrived[i] = 0;
            passed = forwarded[i];
            if (send(sock, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                break; /* gone, as the next recv will tell, or so far behind that it has its own Ctrl-C */
        }
        if (ppoll(&readable, 1, NULL, before) < 0) {
            if (errno != EINTR)
                return -1;
            continue;
        }
        ssize_t n = recv(sock, reply + got, REPLY - got, MSG_DONTWAIT);
        if (n > 0)
            got += (size_t)n;
        else if (n == 0 || (errno != EINTR && errno != EAGAIN))
            return -1;
    }
    return passed;
}

static _Noreturn void run_here(char **argv, int passed, const sigset_t *before)
{
    /* A make that starts after Ctrl-C would be the only one to outlive it. */
    if (passed > 0)
        die_of(passed);
    for (int i = 0; i < FORWARDED; i++) {
        struct sigaction old;
        if (sigaction(forwarded[i], NULL, &old) == 0 && old.sa_handler == note)
            signal(forwarded[i], SIG_DFL);
    }
    sigprocmask(SIG_SETMASK, before, NULL);
    run_make(argv);
}

int main(int argc, char **argv)
{
    static char *nameless[] = {"make", NULL};
    if (argc == 0) {
        argv = nameless;
        argc = 1;
    }
    stderr_open = is_open(2);
    const char *path = filled("D1FLEET_SOCKET");
    char *cwd = path && !must_stay_here(argv[0]) ? getcwd(NULL, 0) : NULL;
    if (!cwd)
        run_make(argv);

    uint32_t flags = is_open(1) && stderr_open && same_stream(1, 2) ? SAME_FILE : 0;
    int fds[MAX_FDS], count = 0, pair[2];
    for (int fd = 0; fd < 3; fd++)
        if (is_open(fd)) {
            flags |= (uint32_t)FD_OPEN << fd;
            fds[count++] = fd;
        }
    if (jobserver(pair)) {
        flags |= JOBSERVER;
        fds[count++] = pair[0];
        fds[count++] = pair[1];
    }

    size_t size = 0;
    unsigned char *data = request(flags, argc, argv, cwd, &size), reply[REPLY] = {0};
    sigset_t before;
    catch_signals(&before);
    int sock = data ? connect_to(path) : -1, passed = -1;
    if (sock >= 0) {
        /* A coordinator that refuses may answer and close before it has read everything. */
        send_all(sock, data, size, fds, count);
        passed = wait_for_reply(sock, reply, &before);
    }
    uint32_t value = (uint32_t)reply[1] << 24 | (uint32_t)reply[2] << 16 | (uint32_t)reply[3] << 8 | reply[4];
    switch (passed < 0 ? 0 : reply[0]) {
    case 'L': run_here(argv, passed, &before);
    case 'X':
    case 'I': _exit((int)value);
    case 'S': die_of((int)value);
    }
    /* Never the real make here: the job may be running elsewhere, and a second writer would tear its targets. */
    say("the coordinator of this build is gone; ", base_name(argv[0]), " not run");
    _exit(EXIT_GONE);
}
