package httpapi

import (
	"net/http"

	"parley.example/client/wire"
	"parley.example/services/gateway/apidocs"
)

// page is the web client: the page and its files.
func (h *handler) page(w http.ResponseWriter, r *http.Request) error {
	if !h.Web.Serve(w, r) {
		return wire.E(wire.NotFound, "there is nothing at this path")
	}
	return nil
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
