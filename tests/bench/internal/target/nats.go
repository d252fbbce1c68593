package target

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"parley.example/tests/bench/internal/proc"
)

type natsKind int

const (
	natsPlain   natsKind = iota // core NATS
	natsSingle                  // JetStream on disk, one node
	natsCluster                 // three nodes that write through to the disk before they answer
)

// startNATS starts the servers and returns the URL for clients, and where the servers tell what they have carried.
func startNATS(g *proc.Group, o Options, name string, kind natsKind) (url string, monitors []string, err error) {
	nodes := 1
	if kind == natsCluster {
		nodes = 3
	}
	ports, routes := make([]int, 3*nodes), make([]string, nodes)
	for i := range ports {
		port, err := proc.FreePort()
		if err != nil {
			return "", nil, err
		}
		ports[i] = port
	}
	for i := range routes {
		routes[i] = fmt.Sprintf("nats://127.0.0.1:%d", ports[nodes+i])
	}
	var urls []string
	var started []*proc.Process
	for i := range nodes {
		id := fmt.Sprintf("%s-%d", name, i)
		conf := fmt.Sprintf("server_name: %s\nlisten: \"127.0.0.1:%d\"\nhttp: \"127.0.0.1:%d\"\n", id, ports[i], ports[2*nodes+i])
		if kind != natsPlain {
			sync := ""
			if kind == natsCluster {
				sync = "sync_interval: always"
			}
			conf += fmt.Sprintf("jetstream { store_dir: %q\n %s }\n", filepath.Join(o.Work, id), sync)
		}
		if kind == natsCluster {
			conf += fmt.Sprintf("cluster { name: bench, listen: \"127.0.0.1:%d\", routes: [%s] }\n", ports[nodes+i], strings.Join(routes, ", "))
		}
		file := filepath.Join(o.Work, id+".conf")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			return "", nil, fmt.Errorf("write a configuration: %w", err)
		}
		p, err := g.Start(proc.Spec{Name: id, Path: filepath.Join(o.Bin, "nats-server"), Args: []string{"-c", file}})
		if err != nil {
			return "", nil, err
		}
		started = append(started, p)
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
		monitors = append(monitors, fmt.Sprintf("http://127.0.0.1:%d", ports[2*nodes+i]))
	}
	for i, p := range started {
		if err := p.Wait("nats-server listens", startTimeout, func() error { return proc.Answers(strings.TrimPrefix(urls[i], "nats://")) }); err != nil {
			return "", nil, err
		}
	}
	return strings.Join(urls, ","), monitors, nil
}
