/* See upgrade.h. */
#define _GNU_SOURCE
#include "upgrade.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define STATUS "HTTP/1.1 101 "
#define END "\r\n\r\n"

const char upgrade_request[] = "GET / HTTP/1.1\r\n"
                               "Host: 127.0.0.1\r\n"
                               "Connection: Upgrade\r\n"
                               "Upgrade: websocket\r\n"
                               "Sec-WebSocket-Version: 13\r\n"
                               "Sec-WebSocket-Key: " KEY "\r\n"
                               "\r\n";

/* Whether one of the lines is the accept header with the value that answers KEY. */
static int accepts(const char *answer, const char *end)
{
    static const char name[] = "\r\nSec-WebSocket-Accept:";

    for (const char *at = answer; at < end; at++) {
        if (strncasecmp(at, name, sizeof name - 1) != 0)
            continue;
        at += sizeof name - 1;
        at += strspn(at, " ");
        return strncmp(at, ACCEPT "\r\n", sizeof ACCEPT + 1) == 0;
    }
    return 0;
}

int upgrade_check(const char *answer, size_t n)
{
    char text[ANSWER_BYTES + 1];
    const char *end;

    memcpy(text, answer, n);
    text[n] = '\0';
    end = strstr(text, END);
    if (end == NULL)
        return n < ANSWER_BYTES && memchr(text, '\0', n) == NULL ? 0 : -EPROTO;
    if (end + sizeof END - 1 != text + n || strncmp(text, STATUS, sizeof STATUS - 1) != 0)
        return -EPROTO;
    return accepts(text, end) ? 1 : -EPROTO;
}

int upgrade(int fd)
{
    ssize_t sent = send(fd, upgrade_request, strlen(upgrade_request), MSG_NOSIGNAL);
    char answer[ANSWER_BYTES];
    size_t n = 0;
    int rc = 0;

    if (sent != (ssize_t)strlen(upgrade_request))
        return sent < 0 ? -errno : -EPROTO;
    while (rc == 0) {
        ssize_t got = recv(fd, answer + n, sizeof answer - n, 0);

        if (got <= 0)
            return got == 0 ? -ECONNRESET : errno == EAGAIN ? -ETIMEDOUT : -errno;
        n += (size_t)got;
        rc = upgrade_check(answer, n);
    }
    return rc < 0 ? rc : 0;
}
