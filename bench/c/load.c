/* The load generator, on one thread: opens streams (each on a connection of its own), posts one
 * question on each, checks every answer chunk by chunk and prints one line of JSON. With --hold it
 * keeps the streams open once each has its first chunk, prints "open", and ends on SIGTERM.
 *
 * --port may be several, asked in turn. With --readers each run is read by so many more streams, at
 * --reader-port; "open" is printed once all of them have their heads. */
#include "answer.h"

#include <getopt.h>
#include <sys/uio.h>

#define MAX_PORTS 16

struct stream {
    struct answer answer; /* first: a pointer to it is a pointer to the stream */
    struct stream *asker; /* whose run this one reads; itself, if it asked */
    int fd;
    bool connected;
    int64_t asked_at, head_at;
    int64_t *arrivals; /* of an asker with readers: when each chunk came */
};

static struct {
    const char *path, *body;
    int ports[MAX_PORTS], port_count, reader_port;
    long streams, concurrency, chunks, readers;
    int64_t ramp, deadline;
    bool hold;
} options = {.path = "/", .body = "{}", .streams = 1, .concurrency = 1, .chunks = 1,
             .deadline = 30000000000};

static int epoll_fd, timer_fd;
static int64_t read_at;
static long started, ended, whole, total, heads, chunks_at_open = -1;
static char first_fault[sizeof((struct answer *)0)->fault];
static struct stream *streams; /* those that ask, then the readers of each */

/* Times whose quantiles are told: from written to read by askers and by readers, from the question
 * to the first chunk, and how much later than the asker of the same run a reader had a chunk. */
struct times {
    int64_t *values;
    long count;
};

static struct times latencies, reader_latencies, first_chunks, lags;

static void note(struct times *times, int64_t value) {
    times->values[times->count++] = value;
}

static void count_chunk(struct answer *a, int64_t written_at) {
    struct stream *s = (struct stream *)a, *asker = s->asker;
    long chunk = a->received - 1;
    if (chunk >= options.chunks) return; /* a fault, which is told at the end */
    if (s == asker) {
        note(&latencies, read_at - written_at);
        if (chunk == 0) note(&first_chunks, read_at - s->asked_at);
        if (s->arrivals) s->arrivals[chunk] = read_at;
        return;
    }
    note(&reader_latencies, read_at - written_at);
    int64_t arrival = asker->arrivals[chunk];
    if (arrival >= s->head_at) note(&lags, read_at - arrival); /* before that it is the past */
    else if (!arrival) note(&lags, 0);
}

static bool is_reader(const struct stream *s) {
    return s->asker != s;
}

static int port_of(const struct stream *s) {
    if (is_reader(s)) return options.reader_port;
    return options.ports[(s - streams) % options.port_count];
}

static bool send_request(struct stream *s) {
    char head[512];
    const char *body = is_reader(s) ? "" : options.body;
    int size = is_reader(s)
        ? snprintf(head, sizeof head, "GET /api/v1/runs/%s/events HTTP/1.1\r\n", s->asker->answer.run)
        : snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nContent-Type: application/json\r\n"
            "Content-Length: %zu\r\n", options.path, strlen(body));
    size += snprintf(head + size, sizeof head - (size_t)size,
        "Host: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n\r\n", port_of(s));
    struct iovec parts[] = {{head, (size_t)size}, {(char *)body, strlen(body)}};
    return writev(s->fd, parts, 2) == (ssize_t)(parts[0].iov_len + parts[1].iov_len);
}

static void start_stream(struct stream *s) {
    struct sockaddr_in address = loopback(port_of(s));
    reset_answer(&s->answer, options.chunks);
    s->connected = false;
    s->head_at = 0;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (s->fd < 0) die("socket");
    no_delay(s->fd);
    if (connect(s->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        die("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = s};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &event) < 0) die("epoll_ctl");
}

static struct stream *readers_of(const struct stream *asker) {
    return streams + options.concurrency + (asker - streams) * options.readers;
}

static void start_asker(struct stream *s) {
    s->asker = s;
    start_stream(s);
    started++;
}

static void start_readers(struct stream *asker) {
    struct stream *readers = readers_of(asker);
    for (long i = 0; i < options.readers; i++) {
        readers[i].asker = asker;
        start_stream(&readers[i]);
    }
}

static void end_stream(struct stream *s, bool good) {
    close(s->fd);
    s->fd = -1;
    ended++;
    if (good) whole++;
    else if (!first_fault[0]) memcpy(first_fault, s->answer.fault, sizeof first_fault);
    if (is_reader(s)) return;
    if (!s->head_at) ended += options.readers; /* which never had anything to read */
    if (!options.ramp && started < options.streams) start_asker(s);
}

/* The clock of the first chunk starts here, with the question. */
static bool ask(struct stream *s) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
    s->connected = true;
    s->asked_at = now_ns();
    if (!send_request(s))
        return fault(&s->answer, "cannot ask", strerror(errno), strlen(strerror(errno)));
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, s->fd, &event) < 0) die("epoll_ctl");
    return true;
}

static void take_head(struct stream *s) {
    s->head_at = read_at;
    heads++;
    if (!is_reader(s)) start_readers(s);
}

static void read_answer(struct stream *s) {
    static char buffer[1 << 18];
    ssize_t n = recv(s->fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    read_at = now_ns();
    if (n <= 0) {
        const char *why = n ? strerror(errno) : "closed";
        end_stream(s, fault(&s->answer, "cut", why, strlen(why)));
        return;
    }
    bool good = feed(&s->answer, buffer, (size_t)n);
    if (good && !s->head_at && s->answer.framing > HEADER) take_head(s);
    if (!good) end_stream(s, false);
    else if (s->answer.framing == WHOLE) end_stream(s, check_whole(&s->answer));
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
        while (started < options.streams && started < options.concurrency) start_asker(&streams[started]);
        return;
    }
    for (; started < options.streams;) {
        int64_t due = begun + started * options.ramp / options.streams;
        if (due > now_ns()) {
            arm_timer(timer_fd, due);
            return;
        }
        start_asker(&streams[started]);
    }
}

/* Those still open when time is up are faults, unless holding them open was the task. */
static void end_late(void) {
    for (long i = 0; i < options.concurrency * (1 + options.readers); i++) {
        if (streams[i].fd < 0) continue;
        started = options.streams;
        end_stream(&streams[i], options.hold || fault(&streams[i].answer, "time is up", "", 0));
    }
}

static int compare(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void print_quantiles(const char *name, struct times times) {
    int64_t *values = times.values;
    long count = times.count;
    qsort(values, (size_t)count, sizeof *values, compare);
    double p50 = count ? (double)values[count / 2] / 1000 : -1;
    double p99 = count ? (double)values[count * 99 / 100] / 1000 : -1;
    printf("\"%s_p50_us\": %.1f, \"%s_p99_us\": %.1f, ", name, p50, name, p99);
}

static long all_chunks(void) {
    return latencies.count + reader_latencies.count;
}

static void print_result(int64_t begun, long asked) {
    printf("{\"streams\": %ld, \"asked\": %ld, \"whole\": %ld, \"chunks\": %ld, \"fault\": \"",
        options.streams, asked, whole, all_chunks());
    for (const char *at = first_fault; *at; at++)
        putchar(*at == '"' || *at == '\\' ? '\'' : *at < ' ' || *at > '~' ? '?' : *at);
    printf("\", \"chunks_since_open\": %ld, ", all_chunks() - (chunks_at_open < 0 ? 0 : chunks_at_open));
    print_quantiles("latency", latencies);
    print_quantiles("first", first_chunks);
    print_quantiles("reader_latency", reader_latencies);
    print_quantiles("lag", lags);
    printf("\"wall_us\": %lld, \"cpu_us\": %lld}\n", (long long)(now_ns() - begun) / 1000,
        (long long)cpu_us());
}

static void parse_ports(char *text) {
    for (char *port; options.port_count < MAX_PORTS && (port = strsep(&text, ","));)
        options.ports[options.port_count++] = atoi(port);
}

static void parse_options(int argc, char **argv) {
    static const struct option names[] = {{"port", 1, 0, 'p'}, {"wire", 1, 0, 'w'},
        {"path", 1, 0, 'u'}, {"body", 1, 0, 'b'}, {"streams", 1, 0, 'n'},
        {"concurrency", 1, 0, 'c'}, {"chunks", 1, 0, 'k'}, {"ramp-ms", 1, 0, 'r'},
        {"deadline-s", 1, 0, 'd'}, {"hold", 0, 0, 'h'}, {"readers", 1, 0, 'r' + 256},
        {"reader-port", 1, 0, 'p' + 256}, {0}};
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) >= 0;) {
        switch (option) {
        case 'p': parse_ports(optarg); break;
        case 'p' + 256: options.reader_port = atoi(optarg); break;
        case 'r' + 256: options.readers = atol(optarg); break;
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
    if (options.ramp || options.readers) options.concurrency = options.streams;
}

static void *make(long count, size_t size) {
    void *made = calloc((size_t)count + 1, size);
    if (!made) die("calloc");
    return made;
}

static void prepare(void) {
    long slots = options.concurrency * (1 + options.readers);
    total = options.streams * (1 + options.readers);
    streams = make(slots, sizeof *streams);
    for (long i = 0; i < slots; i++) streams[i].fd = -1;
    for (long i = 0; options.readers && i < options.concurrency; i++)
        streams[i].arrivals = make(options.chunks, sizeof(int64_t));
    latencies.values = make(options.streams * options.chunks, sizeof(int64_t));
    first_chunks.values = make(options.streams, sizeof(int64_t));
    long read = options.streams * options.readers * options.chunks;
    reader_latencies.values = make(read, sizeof(int64_t));
    lags.values = make(read, sizeof(int64_t));
}

/* With --hold all are open when each has its first chunk, with readers when each has its head. */
static void tell_open(void) {
    if (chunks_at_open >= 0) return;
    bool open = options.hold ? first_chunks.count == options.streams
                             : options.readers && heads == total;
    if (!open) return;
    chunks_at_open = all_chunks();
    puts("open");
    fflush(stdout);
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    handle_signals();
    prepare();
    on_chunk = count_chunk;
    epoll_fd = epoll_create1(0);
    timer_fd = open_timer(epoll_fd);
    int64_t begun = now_ns();
    while (!stopping && now_ns() - begun < options.deadline) {
        struct epoll_event events[256];
        if (started < options.streams) start_due(begun);
        if (options.hold ? ended > 0 : ended == total) break;
        if (options.readers && chunks_at_open < 0 && first_fault[0]) break; /* they never will be */
        tell_open();
        int n = epoll_wait(epoll_fd, events, 256, STOP_CHECK_MS);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) serve(events[i].data.ptr, events[i].events);
            else clear_timer(timer_fd);
        }
    }
    long asked = started * (1 + options.readers);
    end_late();
    print_result(begun, asked);
    return whole == total ? 0 : 1;
}
