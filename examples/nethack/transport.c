// SPDX-License-Identifier: MIT
// Preloaded into the unmodified game. It makes the game a deterministic function of a seed and the
// keys. It passes what the game shows to the player just before the game waits for the next key.
//
//   descriptor 0           the memory shared with the player (link.h)
//   RETAIN_NETHACK_SEED    the seed of /dev/urandom, which seeds the game's random numbers
//   RETAIN_NETHACK_PARENT  the player's process; the game ends when it ends
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "link.h"

enum { link_descriptor = 0, exit_unlinked = 3 };

// Sunday noon, no new or full moon, no Friday the 13th: the game's calendar has no effect.
static const time_t fixed_time = 1000036800;
static const pid_t fixed_process = 4242;
static const uid_t fixed_user = 1000;  // part of a saved game: so any user can load it

// ---- the link to the player

static struct nethack_link* player;
static uint32_t frame_size;

static void futex(uint32_t* word, int operation, uint32_t value) {
  syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

static void hand_over(uint32_t partial) {
  player->frame_size = frame_size;
  player->frame_partial = partial;
  frame_size = 0;
  __atomic_fetch_add(&player->frames, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&player->player_asleep, __ATOMIC_SEQ_CST))
    futex(&player->frames, FUTEX_WAKE, 1);
}

static uint32_t await_key(void) {
  static uint32_t keys_seen;
  while (__atomic_load_n(&player->keys, __ATOMIC_ACQUIRE) == keys_seen)
    futex(&player->keys, FUTEX_WAIT, keys_seen);
  ++keys_seen;
  return player->key;
}

static void show_byte(unsigned char byte) {
  if (frame_size == nethack_frame_capacity) {
    hand_over(1);
    await_key();
  }
  player->frame[frame_size++] = byte;
}

static void show(const char* bytes, size_t count) {
  if (count < nethack_frame_capacity - frame_size) {
    memcpy(player->frame + frame_size, bytes, count);
    frame_size += (uint32_t)count;
  } else {
    while (count-- > 0) show_byte((unsigned char)*bytes++);
  }
}

static int next_key(void) {
  hand_over(0);
  return (int)await_key();
}

// ---- start and end

static uint64_t random_state;
static pid_t parent;

// The signal also comes if only the thread that started the game has ended. So check the process.
static void on_parent_death(int signal_number) {
  (void)signal_number;
  if (syscall(SYS_getppid) != parent) _exit(exit_unlinked);
}

__attribute__((constructor)) static void begin(void) {
  const char* seed = getenv("RETAIN_NETHACK_SEED");
  random_state = seed ? strtoull(seed, NULL, 10) : 0;
  const char* parent_text = getenv("RETAIN_NETHACK_PARENT");
  parent = parent_text ? (pid_t)strtol(parent_text, NULL, 10) : 0;
  player = mmap(NULL, sizeof *player, PROT_READ | PROT_WRITE, MAP_SHARED, link_descriptor, 0);
  if (player == MAP_FAILED) _exit(exit_unlinked);
  signal(SIGUSR2, on_parent_death);
  prctl(PR_SET_PDEATHSIG, SIGUSR2);
  on_parent_death(0);  // the parent may have died before the signal was asked for
}

__attribute__((destructor)) static void end(void) {
  __atomic_store_n(&player->ended, 1, __ATOMIC_RELEASE);
  hand_over(0);
}

// ---- input: the game reads its keys in one of these ways

ssize_t read(int descriptor, void* bytes, size_t count) {
  if (descriptor == link_descriptor) {
    if (count == 0) return 0;
    *(unsigned char*)bytes = (unsigned char)next_key();
    return 1;
  }
  return syscall(SYS_read, descriptor, bytes, count);
}

int getc(FILE* file) { return file == stdin ? next_key() : getc_unlocked(file); }
int fgetc(FILE* file) { return getc(file); }
int getchar(void) { return next_key(); }

// ---- output: what goes to stdout goes to the frame

int putc(int byte, FILE* file) {
  if (file != stdout) return putc_unlocked(byte, file);
  show_byte((unsigned char)byte);
  return byte;
}
int fputc(int byte, FILE* file) { return putc(byte, file); }
int putchar(int byte) { return putc(byte, stdout); }

int fputs(const char* text, FILE* file) {
  const size_t length = strlen(text);
  if (file != stdout) return fwrite_unlocked(text, 1, length, file) == length ? 1 : EOF;
  show(text, length);
  return 1;
}
int puts(const char* text) {
  show(text, strlen(text));
  show_byte('\n');
  return 1;
}
size_t fwrite(const void* bytes, size_t size, size_t count, FILE* file) {
  if (file != stdout) return fwrite_unlocked(bytes, size, count, file);
  show(bytes, size * count);
  return count;
}
int __printf_chk(int flag, const char* format, ...) {
  (void)flag;
  char text[4096];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (length > 0) show(text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
  return length;
}
int fflush(FILE* file) {
  static int (*real)(FILE*);
  if (!real) *(void**)&real = dlsym(RTLD_NEXT, "fflush");
  return file == stdout ? 0 : real(file);
}

// The terminal library's own versions need a function call per byte and a stack machine for every
// cursor movement: a twentieth of the game's time. Its delays ("$<5>") are for old hardware
// terminals.
int tputs(const char* text, int lines, int (*put)(int)) {
  (void)lines, (void)put;
  while (text && *text) {
    const char* delay = strstr(text, "$<");
    const size_t length = delay ? (size_t)(delay - text) : strlen(text);
    show(text, length);
    const char* close = delay ? strchr(delay, '>') : NULL;
    text = close ? close + 1 : text + length + (delay ? 2 : 0);
  }
  return 0;
}

static char* write_number(char* out, int value) {
  if (value >= 100) *out++ = (char)('0' + value / 100 % 10);
  if (value >= 10) *out++ = (char)('0' + value / 10 % 10);
  *out++ = (char)('0' + value % 10);
  return out;
}

char* tgoto(const char* capability, int column, int row) {
  static char* (*real)(const char*, int, int);
  if (!real) *(void**)&real = dlsym(RTLD_NEXT, "tgoto");
  const int in_range = column >= 0 && column < 999 && row >= 0 && row < 999;
  if (!in_range || strcmp(capability, "\033[%i%p1%d;%p2%dH") != 0)
    return real(capability, column, row);
  static char movement[16];
  char* out = movement;
  *out++ = '\033';
  *out++ = '[';
  out = write_number(out, row + 1);
  *out++ = ';';
  out = write_number(out, column + 1);
  *out++ = 'H';
  *out = 0;
  return movement;
}

// ---- sources of differences between runs

static uint64_t next_random(void) {  // splitmix64
  uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

FILE* fopen(const char* path, const char* mode) {
  static FILE* (*real)(const char*, const char*);
  if (!real) *(void**)&real = dlsym(RTLD_NEXT, "fopen");
  if (strcmp(path, "/dev/urandom") == 0) {
    static uint64_t random_bytes;
    random_bytes = next_random();
    return fmemopen(&random_bytes, sizeof random_bytes, "r");
  }
  return real(path, mode);
}

time_t time(time_t* result) {
  if (result) *result = fixed_time;
  return fixed_time;
}
pid_t getpid(void) { return fixed_process; }
uid_t getuid(void) { return fixed_user; }
// The machine may not know this user, but the game expects it.
static struct passwd* the_user(void) {
  static char name[] = "agent", none[] = "", folder[] = "/";
  static struct passwd user;
  user.pw_name = name;
  user.pw_passwd = user.pw_gecos = user.pw_shell = none;
  user.pw_dir = folder;
  user.pw_uid = fixed_user;
  return &user;
}
struct passwd* getpwuid(uid_t user) { return (void)user, the_user(); }
struct passwd* getpwnam(const char* name) { return (void)name, the_user(); }
char* getlogin(void) { return the_user()->pw_name; }
// The game drops privileges that it does not have, for the fixed user.
int setuid(uid_t user) { return (void)user, 0; }
int setgid(gid_t group) { return (void)group, 0; }

// ---- calls that would slow the game down or leave it

int usleep(useconds_t duration) { return (void)duration, 0; }
int napms(int duration) { return (void)duration, 0; }
unsigned sleep(unsigned duration) { return (void)duration, 0; }

// No shell, no mail reader, no compression of saved games.
pid_t fork(void) {
  errno = EAGAIN;
  return -1;
}
// The game signals its whole process group to suspend itself.
int kill(pid_t process, int signal_number) { return (void)process, (void)signal_number, 0; }

// ---- a terminal of 24 rows and 80 columns

int isatty(int descriptor) { return descriptor < 3; }
int tcgetattr(int descriptor, struct termios* settings) {
  (void)descriptor;
  memset(settings, 0, sizeof *settings);
  settings->c_cc[VERASE] = 127;
  settings->c_cc[VKILL] = 21;
  settings->c_ospeed = B38400;
  return 0;
}
int tcsetattr(int descriptor, int when, const struct termios* settings) {
  return (void)descriptor, (void)when, (void)settings, 0;
}
int ioctl(int descriptor, unsigned long request, ...) {
  (void)descriptor;
  if (request == TIOCGWINSZ) {
    va_list arguments;
    va_start(arguments, request);
    struct winsize* size = va_arg(arguments, struct winsize*);
    va_end(arguments);
    *size = (struct winsize){.ws_row = 24, .ws_col = 80};
    return 0;
  }
  errno = ENOTTY;
  return -1;
}
