/* What the parts of the load client share.  One thread, so everything is plain. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINE = 224, ID = 96, TEXT = 4096, PUBLISHERS = 64, PING = PUBLISHERS };
static const uint64_t PUB = 1ull << 32; /* in an epoll key: a publisher's, not a stream's */

enum state { CLOSED, CONNECTING, HEAD, BODY };
struct stream {
    int fd;
    uint8_t state, chunked, ok; /* ok 1: answered 200; 2: anything else */
    int chunk;  /* >0: bytes left; 0: in a size line; -1, -2: end of a chunk to skip */
    int length; /* as far as the size line is read */
    int filled;
    unsigned count, backwards;
    uint64_t highest, set, order; /* of the numbers that its messages carry */
    char line[LINE], id[ID];
};
struct publisher {
    int fd, busy, filled; /* busy 1: waits for its answer; 2: connects */
    double started;
    char answer[TEXT];
};
struct figures {
    float *all;
    size_t used, room;
};

extern struct stream *streams;
extern struct publisher pubs[PUBLISHERS + 1];
extern char stream_text[TEXT], request_text[TEXT], ping_text[TEXT];
extern struct figures latencies, requests, tooks, pings;
extern int ep, port, addresses, opened, total, failed, lost, ready_at_head, done, ping_on;
extern unsigned long deliveries, sent;
extern uint64_t numbered, lowest, highest; /* messages that were published here; what came */

/* basics.c */
double now(void);
uint64_t mixed(uint64_t number);
void die(const char *what);
void note(struct figures *figures, double value);
void print_figures(const char *name, struct figures *f);
int connection(int number, uint64_t key);
void only_read(int fd, uint64_t key);
size_t fill(char *to, const char *text, unsigned long number, const char *id);
void set_text(char *to, const char *from);

/* streams.c */
void start_stream(struct stream *s);
void serve_stream(struct stream *s, uint32_t events);

/* publisher.c */
void publish(struct publisher *p);
void serve_publisher(struct publisher *p, uint32_t events);
