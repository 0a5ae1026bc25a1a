// Mercure's hub as a library behind net/http: anonymous subscribers, no history, no log lines.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"

	"github.com/dunglas/mercure"
)

func main() {
	key := []byte(os.Args[2])
	hub, err := mercure.NewHub(
		context.Background(),
		mercure.WithAnonymous(),
		mercure.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))),
		mercure.WithPublisherJWT(key, "HS256"),
		mercure.WithSubscriberJWT(key, "HS256"),
	)
	if err == nil {
		http.Handle("/.well-known/mercure", hub)
		http.HandleFunc("GET /ping", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "pong") })
		err = http.ListenAndServe("127.0.0.1:"+os.Args[1], nil)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
