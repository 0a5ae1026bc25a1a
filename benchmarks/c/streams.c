/* Streams: opened, and read through HTTP and chunks down to lines. */
#include "load.h"

static void drop(struct stream *s, int *counter)
{
    close(s->fd);
    s->state = CLOSED;
    ++*counter;
}

static void line_of_head(struct stream *s)
{
    if (!s->ok)
        s->ok = !strncmp(s->line, "HTTP/1.", 7) && !strncmp(s->line + 8, " 200", 4) ? 1 : 2;
    else if (!strncasecmp(s->line, "transfer-encoding: chunked", 26))
        s->chunked = 1;
    else if (!s->filled && s->ok == 1)
        s->state = BODY, s->chunk = 0, opened += ready_at_head;
}

static void take_number(struct stream *s, uint64_t number)
{
    s->backwards += s->count && number <= s->highest;
    s->highest = number > s->highest || !s->count ? number : s->highest;
    s->set += mixed(number), s->order = mixed(s->order ^ number);
    lowest = number < lowest ? number : lowest;
    highest = number > highest ? number : highest;
}

static void line_of_body(struct stream *s, double at)
{
    if (!strncmp(s->line, "id:", 3)) {
        const char *id = s->line + 3 + (s->line[3] == ' ');
        strncpy(s->id, id, ID - 1);
    } else if (!strncmp(s->line, "data", 4)) {
        const char *stamp = strstr(s->line, "t=0");
        if (!stamp)
            return;
        char *end;
        note(&latencies, at - strtod(stamp + 2, &end));
        if (!strncmp(end, " n=", 3))
            take_number(s, strtoull(end + 3, NULL, 10));
        s->count++, deliveries++;
    }
}

/* Take decoded bytes; lines longer than LINE count by their beginning. */
static void take_text(struct stream *s, const char *from, size_t size, double at)
{
    while (size) {
        const char *end = memchr(from, '\n', size);
        size_t part = end ? (size_t)(end - from) : size;
        size_t room = LINE - 1 - s->filled, copied = part < room ? part : room;
        memcpy(s->line + s->filled, from, copied);
        s->filled += copied;
        if (!end)
            return;
        if (s->filled && s->line[s->filled - 1] == '\r')
            s->filled--;
        s->line[s->filled] = 0;
        if (s->state == HEAD)
            line_of_head(s);
        else
            line_of_body(s, at);
        s->filled = 0;
        from += part + 1, size -= part + 1;
    }
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Take bytes of a stream's socket: head, then plain or chunked body. */
static void take(struct stream *s, const char *from, size_t size, double at)
{
    while (size && s->state == HEAD) {
        const char *end = memchr(from, '\n', size);
        size_t part = end ? (size_t)(end - from) + 1 : size;
        take_text(s, from, part, at);
        from += part, size -= part;
    }
    if (!s->chunked)
        take_text(s, from, size, at), size = 0;
    while (size) {
        if (s->chunk > 0) {
            size_t part = size < (size_t)s->chunk ? size : (size_t)s->chunk;
            take_text(s, from, part, at);
            from += part, size -= part, s->chunk -= part;
            s->chunk = s->chunk ? s->chunk : -2;
            continue;
        }
        char c = *from++;
        size--;
        if (s->chunk < 0)
            s->chunk++;
        else if (hex(c) >= 0)
            s->length = s->length * 16 + hex(c);
        else if (c == '\n')
            s->chunk = s->length, s->length = 0;
    }
}

void serve_stream(struct stream *s, uint32_t events)
{
    static char piece[1 << 18];

    if (s->state == CONNECTING) {
        char text[TEXT];
        size_t size = fill(text, stream_text, s - streams, s->id);
        if (!(events & EPOLLOUT) || send(s->fd, text, size, MSG_NOSIGNAL) != (ssize_t)size) {
            drop(s, &failed);
            return;
        }
        s->state = HEAD, opened += !ready_at_head;
        only_read(s->fd, s - streams);
        return;
    }
    ssize_t got = recv(s->fd, piece, sizeof piece, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(s, s->state == HEAD && ready_at_head ? &failed : &lost);
        return;
    }
    take(s, piece, got, now());
    if (s->ok == 2)
        drop(s, &failed);
}

void start_stream(struct stream *s)
{
    char id[ID];
    memcpy(id, s->id, ID);
    *s = (struct stream){.state = CONNECTING};
    memcpy(s->id, id, ID);
    s->fd = connection(s - streams, s - streams);
}
