package harness

import (
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
)

// Lossy is a proxy that loses answers: the server has done what was asked, and the asker's connection breaks instead of telling.
type Lossy struct {
	URL  string
	Lost atomic.Int64
}

// Lossy goes between clients and a base URL; every second answer to a path is lost, at random.
func (v *View) Lossy(base, path string) *Lossy {
	v.t.Helper()
	to, err := url.Parse(base)
	if err != nil {
		v.t.Fatal(err)
	}
	l := &Lossy{}
	pass := httputil.NewSingleHostReverseProxy(to)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path && rand.N(2) == 0 {
			l.Lost.Add(1)
			pass.ServeHTTP(nowhere{http.Header{}}, r)
			panic(http.ErrAbortHandler) // cuts the connection
		}
		pass.ServeHTTP(w, r)
	}))
	v.t.Cleanup(srv.Close)
	l.URL = srv.URL
	return l
}

type nowhere struct{ h http.Header }

func (n nowhere) Header() http.Header         { return n.h }
func (n nowhere) Write(b []byte) (int, error) { return io.Discard.Write(b) }
func (n nowhere) WriteHeader(int)             {}
