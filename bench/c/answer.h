/* One streamed answer as the load generator reads it, in three layers: chunked transfer coding
 * is undone, SSE lines are joined, and the marks in the text are checked one by one. Anything
 * that is not exactly what the upstream sent is a fault, told in `fault`. */
#ifndef BENCH_ANSWER_H
#define BENCH_ANSWER_H

#include "common.h"

enum wire { WIRE_OPENAI, WIRE_NATIVE };
enum framing { STATUS_LINE, HEADER, PIECE_SIZE, PIECE, PIECE_END, TRAILER, WHOLE };
enum event { EVENT_OTHER, EVENT_TEXT, EVENT_END };

struct line {
    char *data;
    size_t size, capacity;
};

struct answer {
    enum framing framing;
    bool chunked, finished; /* finished: the terminal marker of the wire was read */
    size_t piece_left;
    struct line head, line;
    enum event event;
    long last_id, expected, received;
    char mark[MARK_SIZE];
    size_t mark_size;
    char run[64]; /* the run's id, out of the head */
    char fault[160];
};

/* Called with the time at which each chunk was written. */
typedef void (*chunk_callback)(struct answer *, int64_t written_at);

static enum wire wire;
static chunk_callback on_chunk;

static bool fault(struct answer *a, const char *what, const char *text, size_t size) {
    snprintf(a->fault, sizeof a->fault, "%s after chunk %ld: %.*s", what, a->received,
        (int)(size < 80 ? size : 80), text);
    return false;
}

static void reset_answer(struct answer *a, long expected) {
    struct line head = a->head, line = a->line;
    *a = (struct answer){.head = head, .line = line, .expected = expected};
    a->head.size = a->line.size = 0;
}

static void append_line(struct line *line, const char *data, size_t size) {
    if (line->size + size > line->capacity) {
        line->capacity = 2 * (line->size + size);
        line->data = realloc(line->data, line->capacity);
        if (!line->data) die("realloc");
    }
    memcpy(line->data + line->size, data, size);
    line->size += size;
}

static bool starts(const char *data, size_t size, const char *prefix) {
    size_t n = strlen(prefix);
    return size >= n && !memcmp(data, prefix, n);
}

static bool contains(const char *data, size_t size, const char *part) {
    return memmem(data, size, part, strlen(part)) != NULL;
}

/* --- marks ------------------------------------------------------------------------------- */

static bool take_mark(struct answer *a) {
    long number;
    long long written_at;
    char text[MARK_SIZE + 1];
    memcpy(text, a->mark, MARK_SIZE);
    text[MARK_SIZE] = 0;
    if (text[MARK_SIZE - 1] != ';' || sscanf(text, "#%6ld@%18lld;", &number, &written_at) != 2)
        return fault(a, "not what was sent", text, MARK_SIZE);
    if (number != a->received) return fault(a, "out of order", text, MARK_SIZE);
    a->received++;
    on_chunk(a, written_at);
    return true;
}

static bool take_text(struct answer *a, const char *text, size_t size) {
    if (a->finished) return fault(a, "text behind the end", text, size);
    while (size) {
        size_t n = MARK_SIZE - a->mark_size < size ? MARK_SIZE - a->mark_size : size;
        memcpy(a->mark + a->mark_size, text, n);
        a->mark_size += n;
        text += n;
        size -= n;
        if (a->mark_size < MARK_SIZE) return true;
        a->mark_size = 0;
        if (!take_mark(a)) return false;
    }
    return true;
}

/* --- SSE --------------------------------------------------------------------------------- */

/* Takes the JSON string behind `key`. Marks need no escapes, so it ends at the next quote. */
static bool take_string(struct answer *a, const char *data, size_t size, const char *key) {
    const char *end = data + size, *at = memmem(data, size, key, strlen(key));
    if (!at) return true;
    at += strlen(key);
    while (at < end && *at == ' ') at++;
    const char *quote = at < end && *at == '"' ? memchr(at + 1, '"', (size_t)(end - at - 1)) : NULL;
    if (!quote) return fault(a, "no text", data, size);
    return take_text(a, at + 1, (size_t)(quote - at - 1));
}

static bool take_openai_data(struct answer *a, const char *data, size_t size) {
    if (size == 6 && !memcmp(data, "[DONE]", 6)) {
        if (a->finished) return fault(a, "second end", data, size);
        a->finished = true;
        return true;
    }
    if (contains(data, size, "\"error\"")) return fault(a, "error", data, size);
    return take_string(a, data, size, "\"content\":");
}

static bool take_native_data(struct answer *a, const char *data, size_t size) {
    if (a->event == EVENT_TEXT) return take_string(a, data, size, "\"text\":");
    if (a->event == EVENT_OTHER) return true;
    if (a->finished || !contains(data, size, "\"outcome\":\"completed\""))
        return fault(a, "wrong end", data, size);
    a->finished = true;
    return true;
}

static bool take_id(struct answer *a, const char *id, size_t size) {
    const char *dot = memrchr(id, '.', size);
    long number = 0;
    for (const char *at = dot; at && ++at < id + size;) number = number * 10 + (*at - '0');
    if (number <= a->last_id) return fault(a, "id does not rise", id, size);
    a->last_id = number;
    return true;
}

static bool take_line(struct answer *a, const char *line, size_t size) {
    if (starts(line, size, "data: "))
        return wire == WIRE_OPENAI ? take_openai_data(a, line + 6, size - 6)
                                   : take_native_data(a, line + 6, size - 6);
    if (wire == WIRE_OPENAI || size == 0) return true;
    if (starts(line, size, "event: "))
        a->event = starts(line, size, "event: text-delta") ? EVENT_TEXT
                   : starts(line, size, "event: run-end")  ? EVENT_END
                                                           : EVENT_OTHER;
    if (starts(line, size, "event: text-replace")) return fault(a, "rewritten", line, size);
    return starts(line, size, "id: ") ? take_id(a, line + 4, size - 4) : true;
}

static bool take_body(struct answer *a, const char *data, size_t size) {
    const char *end = data + size, *newline;
    while ((newline = memchr(data, '\n', (size_t)(end - data)))) {
        const char *line = data;
        size_t length = (size_t)(newline - data);
        if (a->line.size) {
            append_line(&a->line, data, length);
            line = a->line.data;
            length = a->line.size;
            a->line.size = 0;
        }
        if (!take_line(a, line, length)) return false;
        data = newline + 1;
    }
    if (data < end) append_line(&a->line, data, (size_t)(end - data));
    return true;
}

/* --- HTTP -------------------------------------------------------------------------------- */

static void take_header(struct answer *a, const char *line, size_t size) {
    static const char coding[] = "transfer-encoding:", run[] = "x-holdfast-run: ";
    if (size >= sizeof coding && !strncasecmp(line, coding, sizeof coding - 1))
        a->chunked = contains(line, size, "chunked");
    if (size >= sizeof run && !strncasecmp(line, run, sizeof run - 1))
        snprintf(a->run, sizeof a->run, "%.*s", (int)(size - sizeof run + 1), line + sizeof run - 1);
}

static bool take_head_line(struct answer *a, const char *line, size_t size) {
    switch (a->framing) {
    case STATUS_LINE:
        if (!starts(line, size, "HTTP/1.1 200")) return fault(a, "status", line, size);
        a->framing = HEADER;
        return true;
    case HEADER:
        take_header(a, line, size);
        if (size == 0 && !a->chunked) return fault(a, "not chunked", "", 0);
        if (size == 0) a->framing = PIECE_SIZE;
        return true;
    case PIECE_SIZE: {
        char *end, text[20] = {0};
        memcpy(text, line, size < 19 ? size : 19);
        a->piece_left = strtoul(text, &end, 16);
        if (end == text) return fault(a, "not a piece size", line, size);
        a->framing = a->piece_left ? PIECE : TRAILER;
        return true;
    }
    case PIECE_END:
        if (size) return fault(a, "piece too long", line, size);
        a->framing = PIECE_SIZE;
        return true;
    default:
        if (size == 0) a->framing = WHOLE;
        return true;
    }
}

/* Feeds what one read gave. False: the answer is not what it must be. */
static bool feed(struct answer *a, const char *data, size_t size) {
    const char *end = data + size;
    while (data < end) {
        if (a->framing == WHOLE) return fault(a, "bytes behind the end", data, (size_t)(end - data));
        if (a->framing == PIECE) {
            size_t n = a->piece_left < (size_t)(end - data) ? a->piece_left : (size_t)(end - data);
            if (!take_body(a, data, n)) return false;
            data += n;
            a->piece_left -= n;
            if (!a->piece_left) a->framing = PIECE_END;
            continue;
        }
        const char *newline = memchr(data, '\n', (size_t)(end - data));
        append_line(&a->head, data, (size_t)((newline ? newline : end) - data));
        if (!newline) return true;
        data = newline + 1;
        size_t length = a->head.size;
        if (length && a->head.data[length - 1] == '\r') length--;
        a->head.size = 0;
        if (!take_head_line(a, a->head.data, length)) return false;
    }
    return true;
}

/* Whether an answer whose transfer coding ended is all there. */
static bool check_whole(struct answer *a) {
    if (!a->finished) return fault(a, "no terminal marker", "", 0);
    if (a->line.size || a->mark_size) return fault(a, "unfinished line", "", 0);
    if (a->received != a->expected) return fault(a, "chunks are missing", "", 0);
    return true;
}

#endif
