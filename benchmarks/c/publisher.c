/* The connections that publish, and the one for ordinary requests; kept alive. */
#include "load.h"

/* Between two requests a server may have closed the connection. */
static int has_ended(struct publisher *p)
{
    char byte;
    ssize_t got = recv(p->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN);
}

void publish(struct publisher *p)
{
    char text[TEXT];
    int is_ping = p == &pubs[PING];

    if (p->fd >= 0 && has_ended(p))
        close(p->fd), p->fd = -1;
    if (p->fd < 0) { /* sent once it is connected */
        p->fd = connection(0, PUB + (p - pubs));
        p->busy = 2;
        return;
    }
    size_t size = fill(text, is_ping ? ping_text : request_text, total ? sent % total : sent, "");
    p->started = now(), p->busy = 1, p->filled = 0;
    sent += !is_ping;
    if (send(p->fd, text, size, MSG_NOSIGNAL) != (ssize_t)size)
        die("send of the publisher");
}

/* 0: not all there; 1: whole; 2: whole, and the server closes */
static int whole(struct publisher *p, int ended)
{
    char *body = strstr(p->answer, "\r\n\r\n"), *length, *head_end = body;

    if (!body)
        return 0;
    body += 4, *head_end = 0;
    int closes = strcasestr(p->answer, "\r\nconnection: close") != NULL;
    length = strcasestr(p->answer, "\r\ncontent-length:");
    int chunked = strcasestr(p->answer, "\r\ntransfer-encoding: chunked") != NULL;
    int none = !strncmp(p->answer + 8, " 204", 4), status = atoi(p->answer + 9);
    *head_end = '\r';
    if (status < 200 || status > 299) {
        fprintf(stderr, "load: the publisher was answered %s\n", p->answer);
        exit(1);
    }
    int is = none || (length ? p->answer + p->filled - body >= atoi(length + 17)
                             : chunked ? strstr(body, "0\r\n\r\n") != NULL : ended);
    return is ? 1 + (closes || ended) : 0;
}

static void answered(struct publisher *p)
{
    char *took = strstr(p->answer, "\"took\":");
    double seconds = now() - p->started;

    p->busy = 0;
    if (p == &pubs[PING]) {
        note(&pings, seconds);
        return;
    }
    note(&requests, seconds);
    if (took)
        note(&tooks, strtod(took + 7, NULL));
    done++;
}

void serve_publisher(struct publisher *p, uint32_t events)
{
    if (p->busy == 2) {
        if (!(events & EPOLLOUT))
            die("connect of the publisher");
        only_read(p->fd, PUB + (p - pubs));
        publish(p);
        return;
    }
    ssize_t got = recv(p->fd, p->answer + p->filled, sizeof p->answer - 1 - p->filled, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    p->filled += got > 0 ? got : 0;
    p->answer[p->filled] = 0;
    int is = p->busy ? whole(p, got <= 0) : 0;
    if (got <= 0 || is == 2) {
        if (p->busy && !is)
            die("the publisher's connection was cut");
        close(p->fd);
        p->fd = -1;
    }
    if (is)
        answered(p);
    if (is && p == &pubs[PING] && ping_on)
        publish(p);
}
