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

	"parley/tests/bench/internal/target"
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
			file := strings.NewReplacer(" ", "-", ",", "").Replace(t.Name()) + "." + name + ".pprof"
			if err := fetchProfile(addr, filepath.Join(e.Prof, file)); err != nil {
				e.Log("no profile of %s: %v", name, err)
			}
		}()
	}
	return wg.Wait
}

func fetchProfile(addr, path string) error {
	resp, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, int(profileFor.Seconds())))
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
