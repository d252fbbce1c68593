package httpapi

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strings"

	"parley/pkg/wire"
	"parley/services/gateway/apidocs"
)

//go:embed index.html
var indexPage []byte

func (h *handler) index(w http.ResponseWriter, _ *http.Request) error {
	// The page's only style is the one that it carries; nothing else may load or run.
	_, rest, _ := strings.Cut(string(indexPage), "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	return static(w, "text/html; charset=utf-8", indexPage)
}

func (h *handler) openapi(w http.ResponseWriter, _ *http.Request) error {
	return static(w, "application/yaml", apidocs.OpenAPI)
}

func (h *handler) asyncapi(w http.ResponseWriter, _ *http.Request) error {
	return static(w, "application/yaml", apidocs.AsyncAPI)
}

func (h *handler) healthz(w http.ResponseWriter, _ *http.Request) error {
	return static(w, "text/plain; charset=utf-8", []byte("ok\n"))
}

func (h *handler) readyz(w http.ResponseWriter, _ *http.Request) error {
	if err := h.Ready(); err != nil {
		// Why is for the admin port: it may name hosts.
		return wire.E(wire.Unavailable, "not ready")
	}
	return static(w, "text/plain; charset=utf-8", []byte("ready\n"))
}

func static(w http.ResponseWriter, kind string, body []byte) error {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(body) // the asker may be gone
	return nil
}
