/* The load client: many streams and the publisher's connections in one epoll loop.
 *
 * It polls without ever sleeping while a command runs: a client that sleeps has its
 * wake-ups charged to the server that writes to it.  Between commands it waits on stdin
 * and reads nothing.  `busy` in the answers is the share of time in which it had
 * something to do: near 1 it is the bottleneck, and the figures are its own.
 *
 *   load PORT ADDRESSES CORE STALL   ADDRESSES sources from 127.0.0.1 on; CORE -1: any; after
 *                                    STALL seconds without news the rest is missing
 *
 * One command per line; one line of JSON answers it:
 *
 *   stream TEXT                  the request of a stream, with \r\n escaped; @CLIENT@ is
 *                                its number in 12 digits, @RESUME@ the header of its last id
 *   request TEXT                 the publisher's; @STAMP@ is now, @CLIENT@ the message's number
 *                                modulo the streams, @NUMBER@ counts them without a gap
 *   ping TEXT                    an ordinary request
 *   open COUNT WINDOW HEAD EACH  open streams, WINDOW at a time; HEAD 1: each is open when its
 *                                response head is there, 0: when the request is sent; then
 *                                wait for EACH deliveries to each
 *   ones COUNT SECONDS EACH PING publish one at a time: the next when EACH deliveries are there;
 *                                with ordinary requests all the time if PING is 1
 *   burst COUNT EACH CONNS       publish COUNT at once over CONNS connections; EACH deliveries each
 *   expect COUNT                 only read, until so many deliveries are there
 *   watch SECONDS                only read
 *   close                        close the streams; what they last got stays known
 *
 * A delivery is a line that starts with "data" and has "t=0" with the rest of the sender's
 * CLOCK_MONOTONIC seconds, also across chunks and reads.  After it comes " n=" with the message's
 * number; a sender numbers its messages without a gap.  `backwards` counts numbers that came
 * to a stream after they or higher ones had, `odd` the streams that did not get each number of the
 * command once, `reordered` those that got them in another order than the first stream;
 * `whole` says that all streams together got each number once.
 */
#include "load.h"

#include <sched.h>

struct stream *streams;
struct publisher pubs[PUBLISHERS + 1];
char stream_text[TEXT], request_text[TEXT], ping_text[TEXT];
struct figures latencies, requests, tooks, pings;
int ep, port, addresses, opened, total, failed, lost, ready_at_head, done, ping_on;
unsigned long deliveries, sent;
uint64_t numbered, lowest, highest;
static double idle, opening, news, stall;

static void turn(void)
{
    struct epoll_event ready[1024];
    double before = now();
    unsigned long known = deliveries + done + opened + failed;
    int count = epoll_wait(ep, ready, 1024, 0);

    if (!count)
        idle += now() - before;
    for (int i = 0; i < count; i++) {
        if (ready[i].data.u64 & PUB)
            serve_publisher(&pubs[(uint32_t)ready[i].data.u64], ready[i].events);
        else if (streams[ready[i].data.u64].state != CLOSED)
            serve_stream(&streams[ready[i].data.u64], ready[i].events);
    }
    if (deliveries + done + opened + failed != known)
        news = now();
}

static void begin(void)
{
    latencies.used = requests.used = tooks.used = pings.used = 0;
    deliveries = sent = done = 0;
    idle = 0, news = now();
    lowest = UINT64_MAX, highest = 0;
    for (int i = 0; i < total; i++) {
        struct stream *s = &streams[i];
        s->count = s->backwards = 0, s->highest = s->set = s->order = 0;
    }
}

static void report(double started, unsigned long expected)
{
    unsigned least = total ? UINT32_MAX : 0, most = 0;
    double whole = now() - started, seconds = expected ? news - started : whole;

    unsigned long backwards = 0, odd = 0, reordered = 0;
    uint64_t wanted = 0, all = 0;
    for (uint64_t number = lowest; number <= highest; number++)
        wanted += mixed(number);
    for (int i = 0; i < total; i++) {
        least = streams[i].count < least ? streams[i].count : least;
        most = streams[i].count > most ? streams[i].count : most;
        all += streams[i].set, backwards += streams[i].backwards;
        odd += streams[i].set != wanted, reordered += streams[i].order != streams[0].order;
    }
    printf("{\"deliveries\": %lu, \"expected\": %lu, \"least\": %u, \"most\": %u, \"messages\": %lu,"
           " \"streams\": %d, \"failed\": %d, \"lost\": %d, \"seconds\": %.6f, \"opening\": %.6f,"
           " \"busy\": %.3f, \"backwards\": %lu, \"odd\": %lu, \"reordered\": %lu, \"whole\": %d",
           deliveries, expected, least, most, sent, opened, failed, lost, seconds,
           opening, 1 - idle / whole, backwards, odd, reordered, all == wanted);
    print_figures("latency", &latencies);
    print_figures("request", &requests);
    print_figures("took", &tooks);
    print_figures("ping", &pings);
    printf("}\n");
    fflush(stdout);
}

/* Read until all is there, or nothing more comes. */
static void wait_for(unsigned long wanted, int answers)
{
    while ((deliveries < wanted || done < answers) && now() - news < stall)
        turn();
}

static void open_streams(int count, int window, int head, unsigned long each)
{
    struct stream *all = realloc(streams, count * sizeof *streams);
    double started = now();
    int next = 0;

    if (!all)
        die("realloc");
    streams = all;
    if (count > total)
        memset(streams + total, 0, (count - total) * sizeof *streams);
    total = count, opened = failed = lost = 0, ready_at_head = head;
    begin();
    while (opened + failed < count && now() - news < stall) {
        while (next < count && next - opened - failed < window)
            start_stream(&streams[next++]);
        turn();
    }
    opening = now() - started;
    wait_for(each * count, 0);
    report(started, each * count);
}

static void stop_ping(void)
{
    ping_on = 0;
    while (pubs[PING].busy)
        turn();
}

static void ones(int count, double seconds, unsigned long each, int with_ping)
{
    double started = now();
    int i = 0;

    begin();
    ping_on = with_ping;
    if (with_ping)
        publish(&pubs[PING]);
    for (; i < count && (now() - started < seconds || i < 3); i++) {
        publish(&pubs[0]);
        wait_for(each * (i + 1), i + 1);
        if (deliveries < each * (i + 1))
            break;
    }
    stop_ping();
    report(started, each * sent);
}

static void burst(int count, unsigned long each, int conns)
{
    double started = now();
    int asked = 0;

    begin();
    while ((deliveries < each * count || done < count) && now() - news < stall) {
        for (int i = 0; i < conns && asked < count; i++)
            if (!pubs[i].busy)
                publish(&pubs[i]), asked++;
        turn();
    }
    report(started, each * count);
}

static void expect(unsigned long wanted)
{
    double started = now();
    begin();
    wait_for(wanted, 0);
    report(started, wanted);
}

static void watch(double seconds)
{
    double started = now();
    begin();
    while (now() - started < seconds)
        turn();
    report(started, 0);
}

static void close_streams(void)
{
    for (int i = 0; i < total; i++)
        if (streams[i].state != CLOSED)
            close(streams[i].fd), streams[i].state = CLOSED;
    printf("{\"closed\": %d}\n", total);
    fflush(stdout);
}

static void run(const char *line)
{
    int count, window, flag;
    unsigned long each;
    double seconds;

    if (!strncmp(line, "stream ", 7))
        set_text(stream_text, line + 7);
    else if (!strncmp(line, "request ", 8))
        set_text(request_text, line + 8);
    else if (!strncmp(line, "ping ", 5))
        set_text(ping_text, line + 5);
    else if (sscanf(line, "open %d %d %d %lu", &count, &window, &flag, &each) == 4)
        open_streams(count, window, flag, each);
    else if (sscanf(line, "ones %d %lf %lu %d", &count, &seconds, &each, &flag) == 4)
        ones(count, seconds, each, flag);
    else if (sscanf(line, "burst %d %lu %d", &count, &each, &window) == 3)
        burst(count, each, window < PUBLISHERS ? window : PUBLISHERS);
    else if (sscanf(line, "expect %lu", &each) == 1)
        expect(each);
    else if (sscanf(line, "watch %lf", &seconds) == 1)
        watch(seconds);
    else if (!strncmp(line, "close", 5))
        close_streams();
    else
        fprintf(stderr, "load: not a command: %s", line), exit(2);
}

int main(int argc, char **argv)
{
    static char line[2 * TEXT];
    cpu_set_t core;

    if (argc != 5) {
        fprintf(stderr, "usage: load PORT ADDRESSES CORE STALL\n");
        return 2;
    }
    port = atoi(argv[1]), addresses = atoi(argv[2]), stall = atof(argv[4]);
    if (atoi(argv[3]) >= 0) {
        CPU_ZERO(&core);
        CPU_SET(atoi(argv[3]), &core);
        sched_setaffinity(0, sizeof core, &core);
    }
    ep = epoll_create1(0);
    for (int i = 0; i <= PUBLISHERS; i++)
        pubs[i].fd = -1;
    while (fgets(line, sizeof line, stdin))
        run(line);
    return 0;
}
