package scenario

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"parley.example/tests/bench/internal/target"
)

// profileFor is less than any round takes.
const profileFor = 4 * time.Second

// profile takes CPU profiles of a target's processes, when they were asked for; the returned function waits for them. A profile
// costs little, but a run for figures should do without.
func (e *Env) profile(t target.Target) func() {
	p, ok := t.(target.Profiled)
	if e.Prof == "" || !ok {
		return func() {}
	}
	var wg sync.WaitGroup
	for name, addr := range p.Admin() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			path := filepath.Join(e.Prof, fileName(t)+"."+name+".pprof")
			if err := fetch(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, int(profileFor.Seconds())), path); err != nil {
				e.Log("no profile of %s: %v", name, err)
			}
		}()
	}
	return wg.Wait
}

// fileName is a target's name as part of a file's.
func fileName(t target.Target) string {
	return strings.NewReplacer(" ", "-", ",", "").Replace(t.Name())
}

// heap takes what the process behind the first door keeps in memory, and its runtime's own figures.
func (e *Env) heap(t target.Target) {
	p, ok := t.(target.Profiled)
	if e.Prof == "" || !ok {
		return
	}
	for name, addr := range p.Admin() {
		if !strings.HasPrefix(name, "gateway") {
			continue
		}
		for _, what := range []string{"debug/pprof/heap", "metrics"} {
			if err := fetch("http://"+addr+"/"+what, filepath.Join(e.Prof, fileName(t)+"."+name+"."+filepath.Base(what))); err != nil {
				e.Log("no %s of %s: %v", what, name, err)
			}
		}
	}
}

func fetch(url, path string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
