package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Usage is what processes have cost.
type Usage struct {
	CPU time.Duration // user and system time, of ended children as well
	RSS int64         // bytes now
}

// tick is the kernel's unit of CPU times in /proc, 1/100 s on every Linux that Go runs on (USER_HZ).
const tick = 10 * time.Millisecond

// Read sums over the processes and all that descend from them: PostgreSQL works in children.
func Read(pids ...int) (Usage, error) {
	all, err := table()
	if err != nil {
		return Usage{}, err
	}
	children := map[int][]int{}
	for pid, st := range all {
		children[st.parent] = append(children[st.parent], pid)
	}
	var u Usage
	todo := append([]int(nil), pids...)
	for len(todo) > 0 {
		pid := todo[len(todo)-1]
		todo = append(todo[:len(todo)-1], children[pid]...)
		st, ok := all[pid]
		if !ok {
			continue // it has ended; its parent's figure has it when it was waited for
		}
		u.CPU += time.Duration(st.ticks) * tick
		u.RSS += st.rss
	}
	return u, nil
}

type stat struct {
	parent int
	ticks  int64
	rss    int64
}

func table() (map[int]stat, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(dirs) == 0 {
		return nil, fmt.Errorf("read /proc: this needs Linux")
	}
	page := int64(os.Getpagesize())
	out := make(map[int]stat, len(dirs))
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "stat"))
		if err != nil {
			continue // ended a moment ago
		}
		// The second field is the name in brackets, which may hold blanks: count from the last bracket.
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(f) < 22 {
			continue
		}
		num := func(field int) int64 { // numbered as in proc(5); the third is f[0]
			n, _ := strconv.ParseInt(string(f[field-3]), 10, 64)
			return n
		}
		pid, _ := strconv.Atoi(filepath.Base(d))
		out[pid] = stat{parent: int(num(4)), ticks: num(14) + num(15) + num(16) + num(17), rss: num(24) * page}
	}
	return out, nil
}
