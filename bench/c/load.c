/* The load generator, on one thread: opens streams (each on a connection of its own), posts one
 * question on each, checks every answer chunk by chunk and prints one line of JSON. With --hold it
 * keeps the streams open once each has its first chunk, prints "open", and ends on SIGTERM. */
#include "answer.h"

#include <getopt.h>

struct stream {
    struct answer answer; /* first: a pointer to it is a pointer to the stream */
    int fd;
    bool connected;
    int64_t asked_at;
};

static struct {
    const char *path, *body;
    int port;
    long streams, concurrency, chunks;
    int64_t ramp, deadline;
    bool hold;
} options = {.path = "/", .body = "{}", .streams = 1, .concurrency = 1, .chunks = 1,
             .deadline = 30000000000};

static int epoll_fd, timer_fd;
static char *request;
static size_t request_size;
static int64_t read_at, *latencies, *first_chunks;
static long latency_count, first_count, started, ended, whole, live;
static char first_fault[sizeof((struct answer *)0)->fault];
static struct stream *streams;

static void count_chunk(struct answer *a, int64_t written_at) {
    struct stream *s = (struct stream *)a;
    latencies[latency_count++] = read_at - written_at;
    if (a->received == 1) first_chunks[first_count++] = read_at - s->asked_at;
}

static void build_request(void) {
    size_t size = strlen(options.path) + strlen(options.body) + 256;
    request = malloc(size);
    if (!request) die("malloc");
    request_size = (size_t)snprintf(request, size,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
        "Accept: text/event-stream\r\nContent-Length: %zu\r\n\r\n%s",
        options.path, options.port, strlen(options.body), options.body);
}

static void start_stream(struct stream *s) {
    struct sockaddr_in address = loopback(options.port);
    reset_answer(&s->answer, options.chunks);
    s->connected = false;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (s->fd < 0) die("socket");
    no_delay(s->fd);
    if (connect(s->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        die("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = s};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &event) < 0) die("epoll_ctl");
    started++;
    live++;
}

static void end_stream(struct stream *s, bool good) {
    close(s->fd);
    s->fd = -1;
    live--;
    ended++;
    if (good) whole++;
    else if (!first_fault[0]) memcpy(first_fault, s->answer.fault, sizeof first_fault);
    if (!options.ramp && started < options.streams) start_stream(s);
}

/* The clock of the first chunk starts here, with the question. */
static bool ask(struct stream *s) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
    s->connected = true;
    s->asked_at = now_ns();
    if (send(s->fd, request, request_size, 0) != (ssize_t)request_size)
        return fault(&s->answer, "cannot ask", strerror(errno), strlen(strerror(errno)));
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, s->fd, &event) < 0) die("epoll_ctl");
    return true;
}

static void read_answer(struct stream *s) {
    static char buffer[1 << 18];
    ssize_t n = recv(s->fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    read_at = now_ns();
    if (n <= 0) {
        const char *why = n ? strerror(errno) : "closed";
        end_stream(s, fault(&s->answer, "cut", why, strlen(why)));
    } else if (!feed(&s->answer, buffer, (size_t)n)) {
        end_stream(s, false);
    } else if (s->answer.framing == WHOLE) {
        end_stream(s, check_whole(&s->answer));
    }
}

static void serve(struct stream *s, uint32_t events) {
    if (!s->connected && (events & EPOLLOUT) && !(events & EPOLLERR)) {
        if (!ask(s)) end_stream(s, false);
    } else {
        read_answer(s);
    }
}

/* Starts the streams whose time has come; without a ramp as many as may be open at once. */
static void start_due(int64_t begun) {
    if (!options.ramp) {
        while (started < options.streams && started < options.concurrency) start_stream(&streams[started]);
        return;
    }
    for (; started < options.streams;) {
        int64_t due = begun + started * options.ramp / options.streams;
        if (due > now_ns()) {
            arm_timer(timer_fd, due);
            return;
        }
        start_stream(&streams[started]);
    }
}

/* Those still open when time is up are faults, unless holding them open was the task. */
static void end_late(void) {
    for (long i = 0; i < started && i < options.concurrency; i++) {
        if (streams[i].fd < 0) continue;
        started = options.streams;
        end_stream(&streams[i], options.hold || fault(&streams[i].answer, "time is up", "", 0));
    }
}

static int compare(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void print_quantiles(const char *name, int64_t *values, long count) {
    qsort(values, (size_t)count, sizeof *values, compare);
    double p50 = count ? (double)values[count / 2] / 1000 : -1;
    double p99 = count ? (double)values[count * 99 / 100] / 1000 : -1;
    printf("\"%s_p50_us\": %.1f, \"%s_p99_us\": %.1f, ", name, p50, name, p99);
}

static void print_result(int64_t begun, long asked) {
    printf("{\"streams\": %ld, \"asked\": %ld, \"whole\": %ld, \"chunks\": %ld, \"fault\": \"",
        options.streams, asked, whole, latency_count);
    for (const char *at = first_fault; *at; at++)
        putchar(*at == '"' || *at == '\\' ? '\'' : *at < ' ' || *at > '~' ? '?' : *at);
    printf("\", ");
    print_quantiles("latency", latencies, latency_count);
    print_quantiles("first", first_chunks, first_count);
    printf("\"wall_us\": %lld, \"cpu_us\": %lld}\n", (long long)(now_ns() - begun) / 1000,
        (long long)cpu_us());
}

static void parse_options(int argc, char **argv) {
    static const struct option names[] = {{"port", 1, 0, 'p'}, {"wire", 1, 0, 'w'},
        {"path", 1, 0, 'u'}, {"body", 1, 0, 'b'}, {"streams", 1, 0, 'n'},
        {"concurrency", 1, 0, 'c'}, {"chunks", 1, 0, 'k'}, {"ramp-ms", 1, 0, 'r'},
        {"deadline-s", 1, 0, 'd'}, {"hold", 0, 0, 'h'}, {0}};
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) >= 0;) {
        switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case 'w': wire = strcmp(optarg, "native") ? WIRE_OPENAI : WIRE_NATIVE; break;
        case 'u': options.path = optarg; break;
        case 'b': options.body = optarg; break;
        case 'n': options.streams = atol(optarg); break;
        case 'c': options.concurrency = atol(optarg); break;
        case 'k': options.chunks = atol(optarg); break;
        case 'r': options.ramp = atol(optarg) * 1000000; break;
        case 'd': options.deadline = atol(optarg) * 1000000000; break;
        case 'h': options.hold = true; break;
        default: exit(2);
        }
    }
    if (options.ramp) options.concurrency = options.streams;
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    handle_signals();
    build_request();
    on_chunk = count_chunk;
    streams = calloc((size_t)options.concurrency, sizeof *streams);
    latencies = calloc((size_t)(options.streams * options.chunks), sizeof *latencies);
    first_chunks = calloc((size_t)options.streams, sizeof *first_chunks);
    if (!streams || !latencies || !first_chunks) die("calloc");
    epoll_fd = epoll_create1(0);
    timer_fd = open_timer(epoll_fd);
    int64_t begun = now_ns();
    bool told = false;
    while (!stopping && now_ns() - begun < options.deadline) {
        struct epoll_event events[256];
        if (started < options.streams) start_due(begun);
        if (options.hold ? ended > 0 : ended == options.streams) break;
        if (options.hold && !told && first_count == options.streams) {
            told = printf("open\n") > 0;
            fflush(stdout);
        }
        int n = epoll_wait(epoll_fd, events, 256, STOP_CHECK_MS);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) serve(events[i].data.ptr, events[i].events);
            else clear_timer(timer_fd);
        }
    }
    long asked = started;
    end_late();
    print_result(begun, asked);
    return whole == options.streams ? 0 : 1;
}
