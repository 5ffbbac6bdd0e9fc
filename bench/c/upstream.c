/* A scripted OpenAI-style upstream on one thread: POST with a model "bench-<chunks>-<pace us>" is
 * answered with that many chunks at that pace (0: as fast as the reader takes them), one write per
 * chunk as a real one does. With "-held" behind the pace the answer waits after its first chunk until
 * SIGUSR1 lets all such answers go on, spread over one pace. Prints its port; on SIGTERM what it
 * sent and its own CPU time. */
#include "common.h"

#define REQUEST_SIZE 16384
#define MAX_STREAMS 20000
#define HELD (INT64_MAX / 4) /* due at no time */

static volatile sig_atomic_t releasing;

struct stream {
    int fd;
    bool answering, blocked, held;
    long total, sent;
    int64_t pace, due;
    size_t heap_at; /* place in the heap plus one; 0: not in it */
    char model[40];
    size_t in_size, out_at, out_size;
    char out[2048], in[REQUEST_SIZE];
};

static int epoll_fd, timer_fd, listen_fd;
static struct stream *heap[MAX_STREAMS];
static size_t heap_size;
static long chunks_sent, answers_ended;

static void heap_put(size_t at, struct stream *s) {
    heap[at] = s;
    s->heap_at = at + 1;
}

static void sift_up(size_t at, struct stream *s) {
    while (at > 0 && heap[(at - 1) / 2]->due > s->due) {
        heap_put(at, heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_put(at, s);
}

static void sift_down(size_t at, struct stream *s) {
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= heap_size) break;
        if (child + 1 < heap_size && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= s->due) break;
        heap_put(at, heap[child]);
        at = child;
    }
    heap_put(at, s);
}

static void schedule(struct stream *s) {
    if (!s->heap_at) sift_up(heap_size++, s);
}

static void unschedule(struct stream *s) {
    if (!s->heap_at) return;
    size_t at = s->heap_at - 1;
    struct stream *last = heap[--heap_size];
    s->heap_at = 0;
    if (last == s) return;
    sift_down(at, last);
    sift_up(last->heap_at - 1, last);
}

static void close_stream(struct stream *s) {
    unschedule(s);
    close(s->fd);
    free(s);
}

static void watch(struct stream *s, uint32_t events) {
    struct epoll_event event = {.events = events | EPOLLRDHUP, .data.ptr = s};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, s->fd, &event) < 0) die("epoll_ctl");
}

/* Adds one piece of chunked transfer coding; the room is there by construction. */
static void append_piece(struct stream *s, const char *data, int size) {
    s->out_size += (size_t)sprintf(s->out + s->out_size, "%x\r\n%.*s\r\n", (unsigned)size, size, data);
}

static void append_chunk(struct stream *s, const char *delta, const char *finish) {
    char line[512];
    int size = snprintf(line, sizeof line,
        "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\","
        "\"created\":1700000000,\"model\":\"%s\",\"system_fingerprint\":\"fp_bench\","
        "\"choices\":[{\"index\":0,\"delta\":{%s},\"logprobs\":null,\"finish_reason\":%s}]}\n\n",
        s->model, delta, finish);
    append_piece(s, line, size);
}

static void append_content(struct stream *s) {
    char delta[64];
    snprintf(delta, sizeof delta, "\"content\":\"" MARK_FORMAT "\"", s->sent, (long long)now_ns());
    append_chunk(s, delta, "null");
    s->sent++;
    chunks_sent++;
}

static void append_ending(struct stream *s) {
    append_chunk(s, "", "\"stop\"");
    append_piece(s, "data: [DONE]\n\n", 14);
    s->out_size += (size_t)sprintf(s->out + s->out_size, "0\r\n\r\n");
    s->answering = false;
    answers_ended++;
}

/* Writes what waits. False: the peer is gone. */
static bool flush(struct stream *s) {
    while (s->out_at < s->out_size) {
        ssize_t n = send(s->fd, s->out + s->out_at, s->out_size - s->out_at, 0);
        if (n < 0 && errno == EAGAIN) {
            if (!s->blocked) watch(s, EPOLLIN | EPOLLOUT);
            s->blocked = true;
            return true;
        }
        if (n < 0) return false;
        s->out_at += (size_t)n;
    }
    if (s->blocked) watch(s, EPOLLIN);
    s->blocked = false;
    s->out_at = s->out_size = 0;
    return true;
}

/* Writes the next chunk of an answer, its time having come, and plans the one after. */
static bool advance(struct stream *s) {
    append_content(s);
    if (s->sent == s->total) append_ending(s);
    if (!flush(s)) return false;
    s->due = s->held ? HELD : s->pace ? s->due + s->pace : now_ns();
    s->held = false;
    if (s->answering && !s->blocked) schedule(s);
    return true;
}

static bool answer_plain(struct stream *s, const char *status, const char *body) {
    s->out_size = (size_t)snprintf(s->out, sizeof s->out,
        "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        status, strlen(body), body);
    return flush(s);
}

static bool starts_with(const char *text, const char *prefix) {
    return !strncmp(text, prefix, strlen(prefix));
}

static bool start_answer(struct stream *s, const char *body) {
    long total = 0, pace = 0;
    int size = 0;
    const char *model = strstr(body, "\"bench-");
    if (model) sscanf(model, "\"bench-%ld-%ld%n", &total, &pace, &size);
    s->held = size && starts_with(model + size, "-held\"");
    if (total < 1 || (model[size] != '"' && !s->held))
        return answer_plain(s, "400 Bad Request", "{\"error\":{\"message\":\"which model?\"}}");
    snprintf(s->model, sizeof s->model, "bench-%ld-%ld", total, pace);
    s->total = total;
    s->sent = 0;
    s->pace = pace * 1000;
    s->due = now_ns();
    s->answering = true;
    s->out_size = (size_t)sprintf(s->out,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        "Transfer-Encoding: chunked\r\n\r\n");
    return advance(s);
}

/* Takes one whole request off the input, if there is one. False: close the connection. */
static bool take_request(struct stream *s) {
    s->in[s->in_size] = 0;
    char *head_end = strstr(s->in, "\r\n\r\n");
    if (!head_end) return s->in_size < REQUEST_SIZE - 1;
    *head_end = 0;
    char *length = strcasestr(s->in, "\r\ncontent-length:");
    size_t body_size = length ? strtoul(length + 17, NULL, 10) : 0;
    *head_end = '\r';
    char *body = head_end + 4, *end = body + body_size;
    if (body_size >= REQUEST_SIZE || end > s->in + REQUEST_SIZE - 1) return false;
    if (end > s->in + s->in_size) return true;
    char after = *end;
    *end = 0;
    bool ask = !strncmp(s->in, "POST ", 5);
    bool alive = ask ? start_answer(s, body)
                     : answer_plain(s, "200 OK", "{\"object\":\"list\",\"data\":[]}");
    *end = after;
    s->in_size -= (size_t)(end - s->in);
    memmove(s->in, end, s->in_size);
    return alive;
}

static bool read_more(struct stream *s) {
    ssize_t n = recv(s->fd, s->in + s->in_size, REQUEST_SIZE - 1 - s->in_size, 0);
    if (n < 0 && errno == EAGAIN) return true;
    if (n <= 0) return false;
    s->in_size += (size_t)n;
    return s->answering || take_request(s);
}

static void serve(struct stream *s, uint32_t events) {
    bool alive = !(events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP));
    if (alive && (events & EPOLLIN)) alive = read_more(s);
    if (alive && (events & EPOLLOUT)) {
        alive = flush(s);
        if (alive && !s->blocked && s->answering) schedule(s);
    }
    if (!alive) close_stream(s);
}

static void accept_all(void) {
    int fd;
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct stream *s = calloc(1, sizeof *s);
        if (!s) die("calloc");
        s->fd = fd;
        no_delay(fd);
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = s};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    }
    if (errno != EAGAIN && errno != ECONNABORTED) die("accept");
}

static void advance_due(void) {
    int64_t now = now_ns();
    while (heap_size && heap[0]->due <= now) {
        struct stream *s = heap[0];
        unschedule(s);
        if (!advance(s)) close_stream(s);
    }
}

static void on_release(int signal_number) {
    (void)signal_number;
    releasing = 1;
}

/* Lets the held answers go on, evenly spread as answers that began at different times are. */
static void release(void) {
    long held = 0, place = 0;
    int64_t now = now_ns();
    releasing = 0;
    for (size_t i = 0; i < heap_size; i++) held += heap[i]->due == HELD;
    for (size_t i = 0; i < heap_size; i++) {
        struct stream *s = heap[i];
        if (s->due != HELD) continue;
        s->due = now + s->pace * place++ / held;
        sift_up(i, s); /* what it changes places with lies before it, and is done */
    }
}

static void open_listener(void) {
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listen_fd < 0 || bind(listen_fd, (struct sockaddr *)&address, size) < 0 ||
        listen(listen_fd, 4096) < 0 || getsockname(listen_fd, (struct sockaddr *)&address, &size) < 0)
        die("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listen_fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event) < 0) die("epoll_ctl");
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
}

int main(void) {
    handle_signals();
    signal(SIGUSR1, on_release);
    epoll_fd = epoll_create1(0);
    timer_fd = open_timer(epoll_fd);
    open_listener();
    while (!stopping) {
        struct epoll_event events[256];
        if (releasing) release();
        bool due = heap_size && heap[0]->due <= now_ns();
        if (heap_size && !due) arm_timer(timer_fd, heap[0]->due);
        int n = epoll_wait(epoll_fd, events, 256, due ? 0 : STOP_CHECK_MS);
        for (int i = 0; i < n; i++) {
            if (!events[i].data.ptr) clear_timer(timer_fd);
            else if (events[i].data.ptr == &listen_fd) accept_all();
            else serve(events[i].data.ptr, events[i].events);
        }
        advance_due();
    }
    printf("{\"chunks\": %ld, \"answers\": %ld, \"cpu_us\": %lld}\n", chunks_sent, answers_ended,
        (long long)cpu_us());
    return 0;
}
