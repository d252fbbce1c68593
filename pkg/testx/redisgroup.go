package testx

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Do sends one command and gives the answer as text: the elements of a list joined by blanks.
func (r *Redis) Do(args ...string) (string, error) {
	c, err := net.DialTimeout("tcp", r.Addr, 2*time.Second)
	if err != nil {
		return "", fmt.Errorf("dial redis-server: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // a TCP connection takes deadlines
	req := fmt.Sprintf("*%d\r\n", len(args))
	for _, a := range args {
		req += fmt.Sprintf("$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c, req); err != nil {
		return "", fmt.Errorf("ask redis-server: %w", err)
	}
	return reply(bufio.NewReader(c))
}

// Must is Do for what has to work.
func (r *Redis) Must(args ...string) string {
	r.t.Helper()
	out, err := r.Do(args...)
	if err != nil {
		r.t.Fatalf("redis: %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func reply(b *bufio.Reader) (string, error) {
	line, err := b.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("read the answer of redis-server: %w", err)
	}
	kind, text := line[0], strings.TrimSpace(line[1:])
	n, _ := strconv.Atoi(text) // of kinds that have one
	switch kind {
	case '-':
		return "", errors.New(text)
	case '$':
		buf := make([]byte, max(n, 0)+2)
		if n < 0 {
			return "", nil
		}
		_, err := io.ReadFull(b, buf)
		return string(buf[:n]), err
	case '*':
		var parts []string
		for range n {
			p, err := reply(b)
			if err != nil {
				return "", err
			}
			parts = append(parts, p)
		}
		return strings.Join(parts, " "), nil
	}
	return text, nil
}

// RedisCluster starts n nodes of a Redis Cluster, masters all of them, and waits until each serves.
func RedisCluster(t TB, n int) []*Redis {
	t.Helper()
	nodes := make([]*Redis, n)
	bus := make([]string, n)
	for i := range nodes {
		// The default for the bus is the port plus 10,000, which may be too high.
		bus[i] = strconv.Itoa(FreePort(t))
		nodes[i] = RedisServer(t, "--cluster-enabled", "yes", "--cluster-port", bus[i], "--cluster-node-timeout", "2000")
	}
	const slots = 16384
	for i, r := range nodes {
		r.Must("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/n), strconv.Itoa((i+1)*slots/n-1))
		r.Must("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
	}
	for i, r := range nodes[1:] {
		nodes[0].Must("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(r.port), bus[i+1])
	}
	Eventually(t, "the Redis Cluster serves", 30*time.Second, func() bool {
		for _, r := range nodes {
			info, err := r.Do("CLUSTER", "INFO")
			if err != nil || !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", n)) {
				return false
			}
		}
		return true
	})
	return nodes
}

// Replicated is a master, a replica, and a Sentinel that promotes the replica when the master is gone.
type Replicated struct {
	Master, Replica, Sentinel *Redis
	Name                      string // of the master, for Sentinel
}

// RedisReplicated starts all three and waits until the replica is up to date.
func RedisReplicated(t TB) *Replicated {
	t.Helper()
	p := &Replicated{Name: "parley"}
	p.Master = RedisServer(t)
	p.Master.Must("ACL", "SETUSER", "replica", "on", ">secret", "+psync", "+replconf", "+ping")
	p.Replica = RedisServer(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(p.Master.port), "--masteruser", "replica", "--masterauth", "secret")
	Eventually(t, "the replica is up to date", 20*time.Second, func() bool {
		info, err := p.Replica.Do("INFO", "replication")
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	dir := t.TempDir()
	conf := filepath.Join(dir, "sentinel.conf") // Sentinel writes it anew
	text := fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 1\nsentinel down-after-milliseconds %s 1000\nsentinel failover-timeout %s 10000\n",
		p.Name, p.Master.port, p.Name, p.Name)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatalf("write the settings of Sentinel: %v", err)
	}
	p.Sentinel = redisWith(t, conf, "--sentinel")
	Eventually(t, "Sentinel knows the replica", 30*time.Second, func() bool {
		out, err := p.Sentinel.Do("SENTINEL", "REPLICAS", p.Name)
		return err == nil && strings.Contains(out, strconv.Itoa(p.Replica.port)) && strings.Contains(out, "master-link-status ok")
	})
	return p
}

// Lag ends replication: the replica keeps what it has, and gets no more.
func (p *Replicated) Lag() {
	p.Master.t.Helper()
	p.Master.Must("ACL", "SETUSER", "replica", "off")
	p.Master.Must("CLIENT", "KILL", "TYPE", "replica")
	Eventually(p.Master.t, "the replica is cut off", 10*time.Second, func() bool {
		info, err := p.Replica.Do("INFO", "replication")
		return err == nil && strings.Contains(info, "master_link_status:down")
	})
}

// FailOver kills the master and returns when Sentinel has promoted the replica.
func (p *Replicated) FailOver() {
	p.Master.t.Helper()
	p.Master.Stop()
	Eventually(p.Master.t, "the replica is promoted", 30*time.Second, func() bool {
		role, err := p.Replica.Do("ROLE")
		return err == nil && strings.HasPrefix(role, "master")
	})
}
