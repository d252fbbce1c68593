package scenario

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"parley.example/tests/bench/internal/load"
	"parley.example/tests/bench/internal/proc"
	"parley.example/tests/bench/internal/report"
	"parley.example/tests/bench/internal/target"
)

const (
	heldStep  = 5000
	heldMost  = 20_000
	heldDoors = 2
	heldPause = 10 * time.Second
)

// held adds connections step by step: the memory of each must stay the same. A process may have 20,000 open files, so
// each step's clients live in a process of their own.
func held(ctx context.Context, e *Env) error {
	p, err := e.parley(accounts, heldDoors, services)
	if err != nil {
		return err
	}
	t := e.Report.Table(&report.Table{
		Title: "Connections held",
		Note:  fmt.Sprintf("Idle clients, half of them on each of %d gateways, one NATS node; resident sizes %s after the last one came.", heldDoors, heldPause),
		Head:  []string{"connections", "gateways", "a connection", "since the step before", "NATS", "all servers", "opened in"},
	})
	last, err := gateways(p)
	if err != nil {
		return err
	}
	var slopes []float64
	for n := 0; n < heldMost; n += heldStep {
		began := time.Now()
		for d := range heldDoors {
			h, err := e.startHolder(ctx, HolderSpec{Remote: p.(target.Remote).Remote(), Door: d, First: n + d*heldStep/heldDoors, Clients: heldStep / heldDoors})
			if err != nil {
				return err
			}
			defer h.stop()
		}
		took := time.Since(began)
		time.Sleep(heldPause)
		now, err := gateways(p)
		if err != nil {
			return err
		}
		all, err := p.Servers().Usage()
		if err != nil {
			return err
		}
		nats, err := p.Servers().RSS("nats-0")
		if err != nil {
			return err
		}
		total := n + heldStep
		slopes = append(slopes, float64(now-last)/heldStep)
		t.Row(report.Count(float64(total)), report.MB(now), report.KB(float64(now)/float64(total)), report.KB(float64(now-last)/heldStep), report.MB(nats), report.MB(all.RSS), report.Seconds(took))
		e.Log("%d connections: %s", total, report.MB(now))
		last = now
	}
	e.Report.Budget(report.Budget{What: fmt.Sprintf("connections held on %d gateways, memory of each further one (first and last step)", heldDoors), Budget: "100,000, slope straight", Relay: "",
		Parley: fmt.Sprintf("%s; %s, %s", report.Count(heldMost), report.KB(slopes[0]), report.KB(slopes[len(slopes)-1])), Met: heldMost >= 100_000})
	return nil
}

func gateways(p target.Target) (sum int64, err error) {
	for d := range p.Doors() {
		u, err := proc.Read(p.Front(d).Pid())
		if err != nil {
			return 0, err
		}
		sum += u.RSS
	}
	return sum, nil
}

// HolderSpec is what a holder is told on its standard input.
type HolderSpec struct {
	Remote  json.RawMessage
	Door    int
	First   int
	Clients int
}

type holder struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

// holderReady is what a holder prints when its clients are connected.
const holderReady = "ready\n"

func (e *Env) startHolder(ctx context.Context, spec HolderSpec) (*holder, error) {
	body, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("encode what a holder does: %w", err)
	}
	cmd := exec.CommandContext(ctx, e.Self, "holder")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a holder: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a holder: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a holder: %w", err)
	}
	h := &holder{cmd, in}
	if _, err := in.Write(append(body, '\n')); err != nil {
		h.stop()
		return nil, fmt.Errorf("tell a holder: %w", err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != holderReady {
		h.stop()
		return nil, errors.Join(errors.New("a holder could not connect its clients"), err)
	}
	return h, nil
}

func (h *holder) stop() {
	_ = h.in.Close() // tells it to end
	_ = h.cmd.Wait() // its clients are gone either way
}

// Hold is the other side: it connects its clients and keeps them until its input ends.
func Hold(in io.Reader, out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r := bufio.NewReader(in)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	var spec HolderSpec
	if err := json.Unmarshal(line, &spec); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	t, err := target.Dial(spec.Remote)
	if err != nil {
		return err
	}
	crowd, err := load.Gather(ctx, t, spec.Door, spec.First, spec.Clients)
	if err != nil {
		return err
	}
	defer crowd.Close()
	if _, err := io.WriteString(out, holderReady); err != nil {
		return fmt.Errorf("say ready: %w", err)
	}
	_, err = io.Copy(io.Discard, r)
	return err
}
