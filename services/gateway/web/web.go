// Package web is the chat client that a browser gets: files, as they lie in static and in the JavaScript SDK. Nothing is built.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"parley.example/client/js"
)

//go:embed static
var static embed.FS

// Policy of the page: only what this server serves may run, style or be asked, and nothing may turn text into markup.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Prefix of every file but the page itself.
const Prefix = "/web/"

// file is ready to be sent.
type file struct {
	kind  string
	etag  string
	plain []byte
	gz    []byte // nil where it would not be smaller
}

// Site serves the client. The zero value is not usable.
type Site struct{ files map[string]file }

var kinds = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml", ".LICENSE": "text/plain; charset=utf-8",
}

// New reads and compresses the files.
func New() (*Site, error) {
	s := &Site{files: map[string]file{}}
	own, err := fs.Sub(static, "static")
	if err != nil {
		return nil, fmt.Errorf("read the web client: %w", err)
	}
	if err := s.add("", own); err != nil {
		return nil, err
	}
	return s, s.add("js/", js.Files)
}

func (s *Site) add(under string, from fs.FS) error {
	return fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "VERSIONS" {
			return err
		}
		b, err := fs.ReadFile(from, name)
		if err != nil {
			return fmt.Errorf("read the web client: %w", err)
		}
		kind, ok := kinds[path.Ext(name)]
		if !ok {
			return fmt.Errorf("the web client has a file of no known kind: %s", name)
		}
		sum := sha256.Sum256(b)
		f := file{kind: kind, etag: base64.RawURLEncoding.EncodeToString(sum[:12]), plain: b}
		if f.gz, err = compress(b); err != nil {
			return fmt.Errorf("compress %s: %w", name, err)
		}
		s.files[under+name] = f
		return nil
	})
}

func compress(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil || out.Len() >= len(b) {
		return nil, err
	}
	return out.Bytes(), nil
}

// Serve answers a request for "/" or a path under Prefix; false when there is no such file.
func (s *Site) Serve(w http.ResponseWriter, r *http.Request) bool {
	name := "index.html"
	if r.URL.Path != "/" {
		name = strings.TrimPrefix(r.URL.Path, Prefix)
	}
	f, ok := s.files[name]
	if !ok {
		return false
	}
	h := w.Header()
	h.Set("Content-Security-Policy", Policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
	h.Set("Content-Type", f.kind)
	// Asked for each time, and sent only when it has changed: the files of two versions never mix.
	h.Set("Cache-Control", "no-cache")
	h.Add("Vary", "Accept-Encoding")
	body, etag := f.plain, `"`+f.etag+`"`
	if f.gz != nil && acceptsGzip(r) {
		body, etag = f.gz, `"`+f.etag+`-gz"`
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", etag)
	if matches(r.Header.Get("If-None-Match"), f.etag) {
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the asker may be gone
	}
	return true
}

func acceptsGzip(r *http.Request) bool {
	for _, part := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		coding, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			q = strings.ReplaceAll(q, " ", "")
			return q != "q=0" && q != "q=0.0" && q != "q=0.00" && q != "q=0.000"
		}
	}
	return false
}

// matches compares without the mark of the encoding: either form is the same file.
func matches(header, etag string) bool {
	for _, t := range strings.Split(header, ",") {
		t = strings.Trim(strings.TrimPrefix(strings.TrimSpace(t), "W/"), `"`)
		if strings.TrimSuffix(t, "-gz") == etag {
			return true
		}
	}
	return false
}
