package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"syscall"
	"time"

	"parley.example/tests/bench/internal/load"
	"parley.example/tests/bench/internal/report"
	"parley.example/tests/bench/internal/target"
)

const (
	crowdedUsers    = 10_000
	crowdedWatched  = 50
	crowdedContacts = 200
	crowdedDoors    = 2
	crowdedPatient  = 3 * time.Minute
)

// stormRun is one column of the table.
type stormRun struct {
	title   string
	load    load.StormResult
	carried target.Carried
	cpu     map[string]time.Duration
	pairs   int
	clients int
	peak    int64 // of both gateways together
	after   int64
}

// presenceStorm has everybody connect at once.
func presenceStorm(ctx context.Context, e *Env) error {
	everyone := func(n int) load.Storm {
		return load.Storm{Clients: n, Picture: crowdedWatched, Watch: func(i int) []string {
			names := make([]string, crowdedWatched)
			for k := range names {
				names[k] = target.User((i + 1 + k*(n/crowdedWatched-1)) % n) // far and near, on both gateways
			}
			return names
		}}
	}
	roster := load.Storm{Clients: crowdedUsers, Picture: crowdedContacts}
	contacts := services
	contacts.Contacts = crowdedContacts
	var runs []stormRun
	for _, x := range []struct {
		title string
		v     target.Variant
		users int
		storm load.Storm
	}{
		{fmt.Sprintf("%s, %d watched each", report.Count(crowdedUsers/2), crowdedWatched), services, accounts, everyone(crowdedUsers / 2)},
		{fmt.Sprintf("%s, %d watched each", report.Count(crowdedUsers), crowdedWatched), services, accounts, everyone(crowdedUsers)},
		{fmt.Sprintf("%s, %d contacts each (roster)", report.Count(crowdedUsers), crowdedContacts), contacts, crowdedUsers, roster},
	} {
		r, err := e.storm(ctx, x.v, x.users, x.storm)
		e.StopAll()
		if err != nil {
			return fmt.Errorf("%s: %w", x.title, err)
		}
		r.title = x.title
		runs = append(runs, r)
	}
	write, err := costOfWrite()
	if err != nil {
		return err
	}
	e.Report.Table(stormTable(runs, write))
	last := runs[1]
	e.Report.Budget(report.Budget{What: fmt.Sprintf("%s users connect at once, %d watched each: all pictures right", report.Count(crowdedUsers), crowdedWatched), Budget: "work linear in users and watched pairs",
		Parley: fmt.Sprintf("%s after the last one joined; CPU %s of that of half as many users", report.Seconds(last.load.Right-last.load.Open), report.Times(float64(sum(last.cpu)), float64(sum(runs[0].cpu)))),
		Met:    float64(sum(last.cpu)) < 3*float64(sum(runs[0].cpu))})
	return nil
}

// storm is one storm on a deployment of its own.
func (e *Env) storm(ctx context.Context, v target.Variant, users int, s load.Storm) (r stormRun, err error) {
	p, err := e.parley(users, crowdedDoors, v)
	if err != nil {
		return r, err
	}
	carrier, ok := p.(target.Carrier)
	if !ok {
		return r, errors.New("this system does not tell what NATS carried")
	}
	before, err := p.Servers().ByName()
	if err != nil {
		return r, err
	}
	carried, err := carrier.Carried()
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, crowdedPatient)
	defer cancel()
	res, closeAll, err := load.RunStorm(ctx, p, s, func() {
		if now, err := gateways(p); err == nil {
			r.peak = max(r.peak, now)
		}
	})
	defer closeAll()
	if err != nil {
		return r, err
	}
	after, err := p.Servers().ByName()
	if err != nil {
		return r, err
	}
	now, err := carrier.Carried()
	if err != nil {
		return r, err
	}
	r.load, r.cpu, r.clients, r.pairs = res, cost(before, after), s.Clients, s.Clients*s.Picture
	r.carried = target.Carried{All: now.All.Minus(carried.All), Requests: now.Requests.Minus(carried.Requests), Changes: now.Changes.Minus(carried.Changes)}
	time.Sleep(idleFor) // what the storm left is given back by then, or never
	if r.after, err = gateways(p); err != nil {
		return r, err
	}
	e.Log("%d clients: connected in %s, right after %s, CPU %s", s.Clients, res.Open, res.Right, sum(r.cpu))
	return r, nil
}

func sum(byName map[string]time.Duration) (all time.Duration) {
	for _, d := range byName {
		all += d
	}
	return all
}

// naiveEvent is what a naive broadcast sends to everybody for everybody.
const naiveEvent = `{"event":"new_user_online","data":{"username":"u1234"}}`

func stormTable(runs []stormRun, write time.Duration) *report.Table {
	n := float64(crowdedUsers)
	events, listed := n*(n-1)/2, n*(n-1)/2 // the i-th user to come is told to i-1 others, and gets a list of i-1
	t := &report.Table{
		Title: "Presence: everybody connects at once",
		Note: fmt.Sprintf("As fast as they can, through %d gateways; each joins, and in the first columns names whom it watches. Until the picture of every client shows all of those online. "+
			"*Naive* is computed, not measured: every change is sent to every socket that is connected and every newcomer gets a list of all, in events of %d bytes; its CPU is that of one small write to a loopback socket "+
			"(%.1f µs, measured in the same run) for each event, and nothing else. CPU and NATS of the others are all that the storm costs: handshakes, tokens, relations, history's part of the joins, presence.",
			crowdedDoors, len(naiveEvent), float64(write)/1e3),
		Head: []string{"what"},
	}
	row := func(what string, f func(stormRun) string, naive string) {
		cells := []string{what}
		for _, r := range runs {
			cells = append(cells, f(r))
		}
		t.Row(append(cells, naive)...)
	}
	for _, r := range runs {
		t.Head = append(t.Head, r.title)
	}
	t.Head = append(t.Head, "naive, "+report.Count(crowdedUsers)+", computed")
	traffic := func(x target.Traffic) string {
		return fmt.Sprintf("%s, %s", report.Count(float64(x.Messages)), report.MB(x.Bytes))
	}
	row("watched pairs", func(r stormRun) string { return report.Count(float64(r.pairs)) }, report.Count(n*(n-1)))
	row("all connected and joined", func(r stormRun) string { return report.Seconds(r.load.Open) }, "")
	row("all pictures right, after that", func(r stormRun) string { return report.Seconds(r.load.Right - r.load.Open) }, "")
	row("presence frames to clients", func(r stormRun) string { return report.Count(float64(r.load.Frames)) }, report.Count(events+n))
	row("names in them", func(r stormRun) string { return report.Count(float64(r.load.Names)) }, report.Count(events+listed))
	row("bytes of them", func(r stormRun) string { return report.MB(r.load.Bytes) }, report.MB(int64(events*float64(len(naiveEvent))+listed*8)))
	row("NATS messages, in and out", func(r stormRun) string { return traffic(r.carried.All) }, "")
	row("of these, requests to presence", func(r stormRun) string { return traffic(r.carried.Requests) }, report.Count(n))
	row("and changes, published once, to each gateway", func(r stormRun) string { return traffic(r.carried.Changes) }, report.Count(n))
	row("server CPU", func(r stormRun) string { return report.Seconds(sum(r.cpu)) }, "≥ "+report.Seconds(time.Duration(events*float64(write)))+" for the events alone")
	row("server CPU a user, by process", func(r stormRun) string { return byProcess(r.cpu, int64(r.clients)) }, "")
	row("gateways' memory, peak", func(r stormRun) string { return report.MB(r.peak) }, "")
	row(fmt.Sprintf("gateways' memory %s later, a connection", idleFor), func(r stormRun) string { return report.KB(float64(r.after) / float64(r.clients)) }, "")
	return t
}

// costOfWrite is the CPU time of this thread for one small write to a loopback socket that is read.
func costOfWrite() (time.Duration, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("listen: %w", err)
	}
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			_, _ = io.Copy(io.Discard, c) // until the writer ends
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return 0, fmt.Errorf("dial: %w", err)
	}
	defer c.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const thread, writes = 1, 200_000 // RUSAGE_THREAD
	spent := func() (time.Duration, error) {
		var u syscall.Rusage
		if err := syscall.Getrusage(thread, &u); err != nil {
			return 0, fmt.Errorf("read the time of a thread: %w", err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
	}
	before, err := spent()
	if err != nil {
		return 0, err
	}
	frame := []byte("\x81\x37" + naiveEvent)
	for range writes {
		if _, err := c.Write(frame); err != nil {
			return 0, fmt.Errorf("write: %w", err)
		}
	}
	after, err := spent()
	return (after - before) / writes, err
}
