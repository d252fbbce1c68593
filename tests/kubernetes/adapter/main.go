// Command adapter serves custom.metrics.k8s.io for the gateways' sessions, as prometheus-adapter does in a real cluster: it reads each
// ready pod's /metrics by way of the API server. It runs as a process of the lab's first node.
//
//	adapter KUBECONFIG LISTEN METRIC=SERIES...
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

type object = map[string]any

// api is the API server.
type api struct {
	base   string
	client *http.Client
}

func main() {
	if len(os.Args) < 4 {
		log.Fatal("usage: adapter KUBECONFIG LISTEN METRIC=SERIES...")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		log.Fatal(err)
	}
}

func run(kubeconfig, listen string, metrics []string) error {
	a, err := open(kubeconfig)
	if err != nil {
		return err
	}
	series := map[string]string{}
	for _, m := range metrics {
		name, from, _ := strings.Cut(m, "=")
		series[name] = from
	}
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	s := &http.Server{Addr: listen, Handler: a.handler(series), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}}
	return s.ListenAndServeTLS("", "")
}

var field = regexp.MustCompile(`(?m)^\s*(certificate-authority-data|client-certificate-data|client-key-data|server): (\S+)`)

func open(kubeconfig string) (*api, error) {
	b, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, m := range field.FindAllStringSubmatch(string(b), -1) {
		found[m[1]] = m[2]
		if plain, err := base64.StdEncoding.DecodeString(m[2]); err == nil && m[1] != "server" {
			found[m[1]] = string(plain)
		}
	}
	pair, err := tls.X509KeyPair([]byte(found["client-certificate-data"]), []byte(found["client-key-data"]))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kubeconfig, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(found["certificate-authority-data"])) {
		return nil, fmt.Errorf("%s has no certificate authority", kubeconfig)
	}
	return &api{base: found["server"], client: &http.Client{Timeout: 5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}}}, nil
}

func (a *api) get(path string) ([]byte, error) {
	resp, err := a.client.Get(a.base + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s %.200s", path, resp.Status, b)
	}
	return b, err
}

func (a *api) handler(series map[string]string) http.Handler {
	mux := http.NewServeMux()
	for _, v := range []string{"v1beta1", "v1beta2"} {
		group := "custom.metrics.k8s.io/" + v
		mux.HandleFunc("GET /apis/"+group, func(w http.ResponseWriter, _ *http.Request) {
			var list []object
			for name := range series {
				list = append(list, object{"name": "pods/" + name, "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": []string{"get"}})
			}
			answer(w, object{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": list})
		})
		mux.HandleFunc("GET /apis/"+group+"/namespaces/{ns}/pods/{pod}/{metric}", func(w http.ResponseWriter, r *http.Request) {
			from := series[r.PathValue("metric")]
			if from == "" {
				http.NotFound(w, r)
				return
			}
			items, err := a.values(r.PathValue("ns"), r.URL.Query().Get("labelSelector"), r.PathValue("metric"), from, v)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			answer(w, object{"kind": "MetricValueList", "apiVersion": group, "metadata": object{}, "items": items})
		})
	}
	return mux
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the asker is gone: its own business
}

type pods struct {
	Items []struct {
		Metadata struct{ Name string }
		Spec     struct {
			Containers []struct {
				Ports []struct {
					Name          string
					ContainerPort int
				}
			}
		}
		Status struct{ Phase string }
	}
}

// values reads the metric of every running pod; one that does not answer has none, as with a scrape that failed.
func (a *api) values(ns, selector, metric, from, version string) ([]object, error) {
	b, err := a.get("/api/v1/namespaces/" + ns + "/pods?labelSelector=" + url.QueryEscape(selector))
	if err != nil {
		return nil, err
	}
	var list pods
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, err
	}
	items := []object{}
	for _, p := range list.Items {
		if p.Status.Phase != "Running" {
			continue
		}
		port := adminPort(p.Spec.Containers[0].Ports)
		text, err := a.get(fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:%d/proxy/metrics", ns, p.Metadata.Name, port))
		if err != nil {
			log.Print(err)
			continue
		}
		v, err := value(string(text), from)
		if err != nil {
			log.Printf("%s: %v", p.Metadata.Name, err)
			continue
		}
		item := object{"describedObject": object{"kind": "Pod", "namespace": ns, "name": p.Metadata.Name, "apiVersion": "/v1"},
			"timestamp": time.Now().UTC().Format(time.RFC3339), "value": strconv.FormatInt(int64(v*1000), 10) + "m"}
		if version == "v1beta1" {
			item["metricName"] = metric
		} else {
			item["metric"] = object{"name": metric}
		}
		items = append(items, item)
	}
	return items, nil
}

func adminPort(ports []struct {
	Name          string
	ContainerPort int
}) int {
	for _, p := range ports {
		if p.Name == "admin" || p.Name == "metrics" {
			return p.ContainerPort
		}
	}
	return 9090
}

// value sums a series over its labels.
func value(text, series string) (float64, error) {
	sum, found := 0.0, false
	for _, line := range strings.Split(text, "\n") {
		name, rest, _ := strings.Cut(line, " ")
		if name, _, _ = strings.Cut(name, "{"); name != series {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
		if err != nil {
			return 0, fmt.Errorf("%q: %w", line, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, errors.New("no series " + series)
	}
	return sum, nil
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"adapter"}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
