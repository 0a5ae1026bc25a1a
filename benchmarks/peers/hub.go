// A hub in Go's standard library: a map of buffered channels, a goroutine per stream.
// With a second argument, "join", what waits for a stream leaves in one write.
package main

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

type client struct {
	user     string
	messages chan []byte
}

type hub struct {
	mu      sync.RWMutex
	clients map[*client]bool
	users   map[string]*client
	joins   bool
	sent    atomic.Uint64
}

func (h *hub) add(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients[c], h.users[c.user] = true, c
}

func (h *hub) remove(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.clients, c)
	if h.users[c.user] == c {
		delete(h.users, c.user)
	}
}

func (h *hub) stream(w http.ResponseWriter, r *http.Request) {
	flusher := w.(http.Flusher)
	c := &client{r.URL.Query().Get("user_id"), make(chan []byte, 256)}
	h.add(c)
	defer h.remove(c)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	flusher.Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case message := <-c.messages:
			w.Write(message)
			for waiting := len(c.messages); h.joins && waiting > 0; waiting-- {
				w.Write(<-c.messages)
			}
			flusher.Flush()
		}
	}
}

func (h *hub) broadcast(message []byte) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for c := range h.clients {
		c.messages <- message
	}
}

func (h *hub) toUser(user string, message []byte) {
	h.mu.RLock()
	c := h.users[user]
	h.mu.RUnlock()
	c.messages <- message
}

// monotonic is the clock that the load client reads too.
func monotonic() float64 {
	var at syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&at)), 0)
	return float64(at.Sec) + float64(at.Nsec)/1e9
}

func (h *hub) send(w http.ResponseWriter, r *http.Request) {
	pad := strings.Repeat("x", 80)
	count, _ := strconv.Atoi(r.URL.Query().Get("n"))
	users, _ := strconv.Atoi(r.URL.Query().Get("users"))
	started := time.Now()
	for i := 0; i < count; i++ {
		message := fmt.Appendf(nil, "data: t=%014.6f n=%010d %s\n\n", monotonic(), h.sent.Add(1), pad)
		if users > 0 {
			h.toUser(fmt.Sprintf("00000000-0000-4000-8000-%012d", i%users), message)
		} else {
			h.broadcast(message)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, "{\"took\": %.9f}", time.Since(started).Seconds())
}

func main() {
	h := &hub{clients: map[*client]bool{}, users: map[string]*client{}, joins: len(os.Args) > 2 && os.Args[2] == "join"}
	http.HandleFunc("GET /sse/stream", h.stream)
	http.HandleFunc("POST /send", h.send)
	http.HandleFunc("GET /ping", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "pong") })
	if err := http.ListenAndServe("127.0.0.1:"+os.Args[1], nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
