/*
 * System calls for all files of one directory at once; `batched.py` says what for, and binds them.
 *
 * Each does what Python does file by file in `compare/as_left.py`, `apply/copies.py` and `apply/switching.py`, for the usual
 * case: plain files with usual names. It stops before the first file that is not such a one, so that Python, which has all
 * the rules, goes on with that; and after the first error, which Python then meets itself, or is told of.
 *
 * Plain C and the C library: it is loaded with ctypes, so that one build does for every Python.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* To be counted up with every change of what is below; `batched.py` takes no other one. */
int batched_version(void) { return 2; }

enum { DIGEST = 32 };                  /* letters of a digest */
enum { UNKNOWN = 0, UNCHANGED = 1 };   /* as in compare/survey.py */
enum { NOT_SIMPLE = -1 };
enum { BLOCK = 512, PAGE = 4096 };     /* as in copying.py */

static const int64_t SECOND = 1000000000;  /* in ns */

struct row {                           /* what is told of a file */
    uint64_t inode, size;
    int64_t mtime_ns, ctime_ns;
};

/* The C library's own functions have other names in older ones, so that what is compiled with a new one would not do for these. */
static int status_at(int dir_fd, const char *name, struct stat *status)
{
#if defined(__x86_64__) || defined(__aarch64__)
    return (int)syscall(SYS_newfstatat, dir_fd, name, status, AT_SYMLINK_NOFOLLOW);
#else
    return fstatat(dir_fd, name, status, AT_SYMLINK_NOFOLLOW);
#endif
}

static int status_of(int descriptor, struct stat *status)
{
#if defined(__x86_64__) || defined(__aarch64__)
    return (int)syscall(SYS_fstat, descriptor, status);
#else
    return fstat(descriptor, status);
#endif
}

/* Whether a time fits into 64 bits as nanoseconds; some file systems can tell of others, in the years before 1678 and after 2261. */
static int is_near(struct timespec time)
{
    return time.tv_sec > INT64_MIN / SECOND && time.tv_sec < INT64_MAX / SECOND;
}

static int64_t nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * SECOND + time.tv_nsec;
}

/* Whether a file can be told of in a row; then it is. */
static int fill(struct row *row, const struct stat *status)
{
    if (!is_near(status->st_mtim) || !is_near(status->st_ctim))
        return 0;
    row->inode = status->st_ino;
    row->size = (uint64_t)status->st_size;
    row->mtime_ns = nanoseconds(status->st_mtim);
    row->ctime_ns = nanoseconds(status->st_ctim);
    return 1;
}

static int is_row(const struct row *row, const struct stat *status)
{
    struct row now;
    return fill(&now, status) && !memcmp(&now, row, sizeof now);
}

/* A decimal number, spelled as Python does, and the blank after it. The place after these; NULL when they are not there. */
static const char *read_number(const char *at, const char *end, uint64_t *value)
{
    const char *begin = at;
    uint64_t sum = 0;
    for (; at < end && *at >= '0' && *at <= '9'; at++) {
        const uint64_t digit = (uint64_t)(*at - '0');
        if (sum > (UINT64_MAX - digit) / 10 || (at > begin && *begin == '0'))
            return NULL;
        sum = sum * 10 + digit;
    }
    if (at == begin || at == end || *at != ' ')
        return NULL;
    *value = sum;
    return at + 1;
}

/* The same, of a time, which may be one before 1970. */
static const char *read_time(const char *at, const char *end, int64_t *value)
{
    const int is_negative = at < end && *at == '-';
    uint64_t number;
    at = read_number(at + is_negative, end, &number);
    if (!at || number > INT64_MAX || (is_negative && !number))
        return NULL;
    *value = is_negative ? -(int64_t)number : (int64_t)number;
    return at;
}

/* Inode, size and times of a file, as listings have them. The place after these; NULL when they are not there. */
static const char *read_row(const char *at, const char *end, struct row *row)
{
    if ((at = read_number(at, end, &row->inode)) && (at = read_number(at, end, &row->size))
        && (at = read_time(at, end, &row->mtime_ns)))
        at = read_time(at, end, &row->ctime_ns);
    return at;
}

/* Whether a name is spelled as it is, and can be one; then it is copied, with a zero at the end. */
static int read_name(const char *spelled, size_t length, char name[NAME_MAX + 1])
{
    if (!length || length > NAME_MAX)
        return 0;
    for (size_t at = 0; at < length; at++) {
        const char letter = spelled[at];
        if (letter == '%' || letter == ' ' || letter == '/' || !letter)
            return 0;
        name[at] = letter;
    }
    name[length] = '\0';
    return 1;
}

/*
 * Compare the files of a directory with what is listed of them.
 *
 * entries: what the archive's index lists of the directory there. Directories among them are left to the caller.
 * listed: what the manifest lists of the directory of the host.
 * gid: that new files get, for those who are not root.
 * states: gets one for each file, as of a survey; there must be room for each line that is listed.
 *
 * The number of files; NOT_SIMPLE where Python has to look.
 */
long compare_files(const char *entries, size_t entries_length, const char *listed, size_t listed_length,
                   int source_fd, int real_fd, int is_root, unsigned gid, uint64_t *states)
{
    const char *entries_end = entries + entries_length, *listed_end = listed + listed_length;
    long count = 0;
    while (entries < entries_end) {
        const char *end = memchr(entries, '\n', (size_t)(entries_end - entries));
        if (!end)
            return NOT_SIMPLE;
        if (end - entries > 2 && entries[0] == '/' && entries[1] == ' ') {
            entries = end + 1;
            continue;
        }
        struct row wanted, known;
        const char *digest = read_row(entries, end, &wanted);
        if (!digest || end - digest < DIGEST + 2 || digest[DIGEST] != ' ')
            return NOT_SIMPLE;
        const char *spelled = digest + DIGEST + 1;
        const size_t length = (size_t)(end - spelled);
        char name[NAME_MAX + 1];
        if (!read_name(spelled, length, name))
            return NOT_SIMPLE;

        const char *left = listed < listed_end ? memchr(listed, '\n', (size_t)(listed_end - listed)) : NULL;
        if (!left || (size_t)(left - listed) < length + 3 || listed[0] != 'f' || listed[1] != ' ')
            return NOT_SIMPLE;
        const char *told = read_row(listed + 2, left, &known);
        const char *name_told = left - length;
        if (!told || told > name_told - 1 || name_told[-1] != ' ' || memcmp(name_told, spelled, length))
            return NOT_SIMPLE;

        struct stat there, source;
        uint64_t state = UNKNOWN;
        if (status_at(real_fd, name, &there)) {
            if (errno != ENOENT)
                return NOT_SIMPLE;
        } else if (S_ISDIR(there.st_mode)) {
            return NOT_SIMPLE;
        } else if (is_row(&known, &there) && name_told - told > DIGEST && *told != '-') {
            const int is_same = !memcmp(told, digest, DIGEST);
            if (is_same && name_told - told == DIGEST + 3 && !memcmp(told + DIGEST, " - ", 3)) {
                if (status_at(source_fd, name, &source))
                    return NOT_SIMPLE;
                if (is_row(&wanted, &source) && there.st_mode == source.st_mode && there.st_nlink == 1
                    && source.st_nlink == 1 && there.st_size == source.st_size
                    && nanoseconds(there.st_mtim) == nanoseconds(source.st_mtim)
                    && there.st_gid == (is_root ? source.st_gid : gid)
                    && (!is_root || there.st_uid == source.st_uid))
                    state = UNCHANGED;
            } else if (!is_same && there.st_ino > UNCHANGED) {
                state = there.st_ino;
            }
        }
        states[count++] = state;
        entries = end + 1;
        listed = left + 1;
    }
    return listed == listed_end ? count : NOT_SIMPLE;
}

/* All of the content; 0, or the error. */
static int write_all(int target, const char *content, size_t size)
{
    while (size) {
        const ssize_t written = write(target, content, size);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        content += written;
        size -= (size_t)written;
    }
    return 0;
}

/* All of an open file, if it has that size: 1; 0 if not. */
static int read_all(int descriptor, char *content, size_t size)
{
    size_t done = 0;
    for (;;) {
        const ssize_t got = read(descriptor, content + done, size + 1 - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 && done == size;
        done += (size_t)got;
        if (done > size)
            return 0;
    }
}

/* Make a file with this content; 0, or the error. */
static int make_copy(int dir_fd, const char *place, const char *content, const struct stat *source, int is_root,
                     unsigned gid, struct row *row)
{
    int target;
    do
        target = openat(dir_fd, place, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, source->st_mode & 0777);
    while (target < 0 && errno == EINTR);
    if (target < 0)
        return errno;
    const struct timespec times[2] = {source->st_atim, source->st_mtim};
    struct stat made;
    int error = write_all(target, content, (size_t)source->st_size);
    if (!error && futimens(target, times))
        error = errno;
    if (!error && is_root && (source->st_uid != 0 || source->st_gid != gid)
        && fchown(target, source->st_uid, source->st_gid))
        error = errno;
    if (!error && status_of(target, &made))
        error = errno;
    /* Some file systems give the directory's group to each new file. */
    if (!error && is_root && (made.st_uid != source->st_uid || made.st_gid != source->st_gid)
        && (fchown(target, source->st_uid, source->st_gid) || status_of(target, &made)))
        error = errno;
    if (close(target) && !error)
        error = errno;
    if (!error && !fill(row, &made))
        error = EOVERFLOW;
    return error;
}

/*
 * Copy files of one directory into another one.
 *
 * fields: what the archive's index lists of each before its name, one after the other, each with a zero at the end.
 * names: of each, in the same way.
 * places: the names of the copies, in the same way; NULL = the same names.
 * most_bytes: of a file.
 * gid: that new files of root get by themselves.
 * rows: gets one for each copy.
 * error: gets that of a copy; 0 where the next file is not a plain one, and when there is none.
 *
 * The number of copies that are complete.
 */
size_t copy_files(int source_fd, int dir_fd, const char *fields, const char *names, const char *places, size_t count,
                  size_t most_bytes, int is_root, unsigned gid, struct row *rows, int *error)
{
    char *content = NULL;
    size_t room = 0, done = 0;
    *error = 0;
    for (; done < count; done++) {
        struct row known;
        struct stat source;
        const char *place = places ? places : names;
        if (!read_row(fields, fields + strlen(fields), &known))
            break;
        const int descriptor = openat(source_fd, names, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        if (descriptor < 0)
            break;
        const int has_status = !status_of(descriptor, &source);
        const size_t size = has_status && source.st_size >= 0 ? (size_t)source.st_size : SIZE_MAX;
        const int is_plain = has_status && S_ISREG(source.st_mode) && !(source.st_mode & 07000)
            && source.st_nlink == 1 && size <= most_bytes && is_row(&known, &source)
            && !(size > PAGE && (size_t)source.st_blocks * BLOCK < size);
        if (is_plain && room < size + 1) {
            free(content);
            room = size + 1 < 65536 ? 65536 : size + 1;
            content = malloc(room);
        }
        const int is_read = is_plain && content && read_all(descriptor, content, size);
        close(descriptor);
        if (!is_read)
            break;
        *error = make_copy(dir_fd, place, content, &source, is_root, gid, &rows[done]);
        if (*error)
            break;
        fields += strlen(fields) + 1;
        names += strlen(names) + 1;
        if (places)
            places += strlen(places) + 1;
    }
    free(content);
    return done;
}

/*
 * Let new files take their places in a directory.
 *
 * hidden: the names under which they wait, one after the other, each with a zero at the end.
 * names: those that they are to have, in the same way.
 * inodes: their own, and of what they replace, 0 = nothing is there; of each.
 * rows: gets one for each.
 * is_unclear: gets 1 where the next name was changed, too, but something else may have it.
 *
 * The number of those that have their places. The next one has not been touched, unless `is_unclear`.
 */
size_t switch_files(int dir_fd, const char *hidden, const char *names, const uint64_t (*inodes)[2], size_t count,
                    struct row *rows, int *is_unclear)
{
    enum { NO_REPLACE = 1, EXCHANGE = 2 };
    size_t done = 0;
    *is_unclear = 0;
    for (; done < count; done++) {
        struct stat status;
        const unsigned flags = inodes[done][1] ? EXCHANGE : NO_REPLACE;
        if (syscall(SYS_renameat2, dir_fd, hidden, dir_fd, names, flags))
            break;
        if (status_at(dir_fd, names, &status) || status.st_ino != inodes[done][0] || !fill(&rows[done], &status)) {
            *is_unclear = 1;
            break;
        }
        hidden += strlen(hidden) + 1;
        names += strlen(names) + 1;
    }
    return done;
}
