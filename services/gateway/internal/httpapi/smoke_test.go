package httpapi

import (
	"net/http"
	"testing"
)

func TestSmoke(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	for _, p := range []string{"/", "/healthz", "/readyz", "/openapi.yaml", "/asyncapi.yaml", "/v1/contacts", "/v1/conversations", "/v1/rooms/lisa%26avi/messages"} {
		r := ask(h, "GET", p, "Avi", "")
		if r.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", p, r.StatusCode, r.body)
		}
	}
}
