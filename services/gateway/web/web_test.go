package web

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func site(t *testing.T) *Site {
	t.Helper()
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(s *Site, path string, header ...string) *http.Response {
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	if !s.Serve(w, r) {
		w.WriteHeader(http.StatusNotFound)
	}
	return w.Result()
}

// needed follows the page to everything that it loads at its start.
func needed(t *testing.T, s *Site) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	var load func(name string)
	load = func(name string) {
		if _, have := all[name]; have {
			return
		}
		target := Prefix + name
		if name == "" {
			target = "/"
		}
		resp := get(s, target, "Accept-Encoding", "gzip")
		if resp.StatusCode != 200 {
			t.Errorf("%s: %d", target, resp.StatusCode)
			return
		}
		b, _ := io.ReadAll(resp.Body) // of a recorder
		all[name] = b
		if f := s.files[name]; name != "" && strings.HasSuffix(name, "js") {
			dir := name[:strings.LastIndex(name, "/")+1]
			for _, m := range regexp.MustCompile(`(?m)(?:from|import) ?"\./([^"]+)"`).FindAllSubmatch(f.plain, -1) {
				load(dir + string(m[1]))
			}
		}
	}
	load("")
	for _, m := range regexp.MustCompile(`(?:src|href)="web/([^"]+)"`).FindAllSubmatch(s.files["index.html"].plain, -1) {
		load(string(m[1]))
	}
	return all
}

func TestStartIsSmall(t *testing.T) {
	sum := 0
	for name, b := range needed(t, site(t)) {
		t.Logf("%6d  %s", len(b), name)
		sum += len(b)
	}
	t.Logf("%6d  all", sum)
	if sum > 100_000 {
		t.Errorf("the start transfers %d bytes", sum)
	}
}

// What is embedded and never asked for is dead weight, or was forgotten in an import.
func TestFilesAreAllNeeded(t *testing.T) {
	s := site(t)
	all := needed(t, s)
	for name := range s.files {
		if _, ok := all[name]; !ok && name != "index.html" && !strings.HasSuffix(name, ".LICENSE") {
			t.Errorf("%s is loaded by nothing", name)
		}
	}
	for _, lib := range []string{"preact", "htm"} {
		if _, ok := s.files["vendor/"+lib+".LICENSE"]; !ok {
			t.Errorf("the licence of %s is missing", lib)
		}
	}
}

func TestFilesCachingAndEncodings(t *testing.T) {
	s := site(t)
	plain, packed := get(s, "/web/app.js"), get(s, "/web/app.js", "Accept-Encoding", "br, gzip;q=0.8")
	want, _ := io.ReadAll(plain.Body) // of a recorder
	if plain.Header.Get("Content-Encoding") != "" || packed.Header.Get("Content-Encoding") != "gzip" || packed.Header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("headers %v, %v", plain.Header, packed.Header)
	}
	z, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(z); !bytes.Equal(got, want) {
		t.Error("the two forms differ")
	}
	for _, c := range []struct {
		header, value string
		status        int
	}{
		{"If-None-Match", plain.Header.Get("ETag"), 304},
		{"If-None-Match", packed.Header.Get("ETag"), 304},
		{"If-None-Match", `"x", W/` + packed.Header.Get("ETag"), 304},
		{"If-None-Match", `"x"`, 200},
		{"Accept-Encoding", "gzip;q=0", 200},
	} {
		r := get(s, "/web/app.js", c.header, c.value)
		if r.StatusCode != c.status || r.Header.Get("Content-Encoding") != "" || r.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %s: %d %v", c.header, c.value, r.StatusCode, r.Header)
		}
	}
}

// The source itself has no way to make markup of text, and no way around the policy.
func TestFilesParseNoHTML(t *testing.T) {
	for name, f := range site(t).files {
		if strings.HasPrefix(name, "vendor/") || !strings.HasSuffix(name, ".js") {
			continue
		}
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser", "createContextualFragment"} {
			if bytes.Contains(f.plain, []byte(bad)) {
				t.Errorf("%s has %s", name, bad)
			}
		}
	}
}
