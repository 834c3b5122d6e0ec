/*
 * A user who changes its own directory as fast as the kernel lets it, while an Install of root's works there.
 *
 *   racer UID FLAG DIRECTORY swap A B       exchange these two names, again and again
 *   racer UID FLAG DIRECTORY plant TEXT     put a file with TEXT in the place of whatever has a hidden name
 *   racer UID FLAG DIRECTORY plant-link PATH  put a link to PATH there
 *   racer UID FLAG DIRECTORY write NAME TEXT write TEXT, and what was there, into a file that was opened before
 *
 * FLAG is the descriptor of a page of memory: the race goes on while its first byte isn't 0. A byte on standard input
 * begins a race, each at another pace; a byte on standard output says that it is on, another one that it is over and
 * that the user has tidied up: A and B have their own names again, and the file has TEXT. Whoever sets the second byte
 * of the page is sent a byte once the user has done again all that it does in a turn. The program ends with its standard
 * input.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST_NAME = 255, LONGEST_TEXT = 4096 };

static volatile unsigned char *is_on, *is_awaited;
static unsigned long planted, races;

/* Between two turns: whoever is always faster than the Install never lets it look, and then write, at one place. */
static const long paces_ns[] = {0, 0, 5000, 50000, 300000};

static void say(char what)
{
    if (write(STDOUT_FILENO, &what, 1) != 1)
        exit(0);
}

static void take_turns(void (*act)(void))
{
    struct timespec pace = {0, paces_ns[races++ % (sizeof paces_ns / sizeof *paces_ns)]};
    say('+');
    while (*is_on) {
        unsigned char was_awaited = *is_awaited;
        act();
        if (was_awaited) {
            *is_awaited = 0;
            say('.');
        }
        if (pace.tv_nsec)
            nanosleep(&pace, NULL);
    }
}

static void become(uid_t uid)
{
    if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
        err(1, "becoming user %u", (unsigned)uid);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        err(1, "giving up privileges");
}

static ino_t inode_of(const char *name)
{
    struct stat status;
    return lstat(name, &status) ? 0 : status.st_ino;
}

static const char *first, *second;

static void exchange(void)
{
    renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE);
}

static void swap(void)
{
    ino_t bait = inode_of(second);
    if (!bait)
        errx(1, "%s is not there", second);
    take_turns(exchange);
    if (inode_of(first) == bait)
        exchange();
}

static void make_bait(const char *text)
{
    unlink("bait");
    int file = open("bait", O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (file < 0 || write(file, text, strlen(text)) < 0 || close(file))
        err(1, "writing the bait");
}

static DIR *directory;
static ino_t own;

static void replace_hidden(void)
{
    char name[LONGEST_NAME + 1];
    struct dirent *entry;
    rewinddir(directory);
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] != '.' || entry->d_ino == own || !strcmp(entry->d_name, ".") ||
            !strcmp(entry->d_name, ".."))
            continue;
        snprintf(name, sizeof name, "planted-%lu", planted++);
        if (linkat(AT_FDCWD, "bait", AT_FDCWD, name, 0) == 0)
            renameat2(AT_FDCWD, name, AT_FDCWD, entry->d_name, RENAME_EXCHANGE);
    }
}

static void plant(void)
{
    own = inode_of("bait");
    directory = opendir(".");
    if (!directory || !own)
        err(1, "no bait, or no directory");
    take_turns(replace_hidden);
    closedir(directory);
}

static int file;
static char was[LONGEST_TEXT];
static ssize_t size;

static void scribble(void)
{
    if (file < 0)
        return; /* The Install has already taken it away from the user. */
    if (pwrite(file, second, strlen(second), 0) < 0 || pwrite(file, was, (size_t)size, 0) < 0)
        err(1, "writing to %s", first);
}

static void hold_and_write(void)
{
    file = open(first, O_RDWR | O_NOFOLLOW);
    size = file < 0 ? 0 : pread(file, was, sizeof was, 0);
    if (size < 0)
        err(1, "reading %s", first);
    take_turns(scribble);
    if (file < 0)
        return;
    if (pwrite(file, second, strlen(second), 0) < 0)
        err(1, "writing to %s", first);
    close(file);
}

int main(int count, char **arguments)
{
    char byte;
    if (count < 6)
        errx(2, "too few arguments");
    is_on = mmap(NULL, 2, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(arguments[2]), 0);
    if (is_on == MAP_FAILED)
        err(1, "mapping the flag");
    is_awaited = is_on + 1;
    become((uid_t)atoi(arguments[1]));
    first = arguments[5];
    second = arguments[6];
    while (read(STDIN_FILENO, &byte, 1) == 1) {
        const char *what = arguments[4];
        if (chdir(arguments[3]))
            err(1, "entering %s", arguments[3]);
        if (!strcmp(what, "plant")) {
            make_bait(first);
            plant();
        } else if (!strcmp(what, "plant-link")) {
            unlink("bait");
            if (symlink(first, "bait"))
                err(1, "making the bait");
            plant();
        } else if (!strcmp(what, "swap") && second)
            swap();
        else if (!strcmp(what, "write") && second)
            hold_and_write();
        else
            errx(2, "%s is no race", what);
        say('-');
    }
    return 0;
}
