package httpapi

import (
	"net/http"
	"strings"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/token"
)

// credentials reads the body; tidy is applied to the name before it is looked at.
func (h *handler) credentials(w http.ResponseWriter, r *http.Request, tidy func(string) string) (api.Credentials, error) {
	var c wire.Credentials
	if err := readJSON(w, r, &c); err != nil {
		return api.Credentials{}, err
	}
	name, err := room.Name(tidy(c.Username))
	if err != nil {
		return api.Credentials{}, errName
	}
	if c.Password == "" {
		return api.Credentials{}, wire.E(wire.InvalidArgument, `the body has a "password"`)
	}
	return api.Credentials{Username: name, Password: c.Password, Address: h.edge.AddressText(r), Scope: token.ScopeNative}, nil
}

func (h *handler) register(w http.ResponseWriter, r *http.Request) error {
	c, err := h.credentials(w, r, func(name string) string { return name })
	if err != nil {
		return err
	}
	if err := h.Storage(); err != nil {
		return err
	}
	u, err := api.AuthRegister.Call(r.Context(), h.Services, c)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, wire.User(u))
}

func (h *handler) login(w http.ResponseWriter, r *http.Request) error {
	c, err := h.credentials(w, r, strings.TrimSpace) // keyboards of phones add a blank to what they complete
	if err != nil {
		return err
	}
	t, err := api.AuthLogin.Call(r.Context(), h.Services, c)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, wire.Tokens(t))
}

func (h *handler) refresh(w http.ResponseWriter, r *http.Request) error {
	var b wire.RefreshToken
	if err := readJSON(w, r, &b); err != nil {
		return err
	}
	if b.RefreshToken == "" {
		return wire.E(wire.InvalidArgument, `the body has a "refresh_token"`)
	}
	t, err := api.AuthRefresh.Call(r.Context(), h.Services, api.RefreshRequest{RefreshToken: b.RefreshToken, Address: h.edge.AddressText(r)})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, wire.Tokens(t))
}

func (h *handler) logout(w http.ResponseWriter, r *http.Request, c token.Claims) error {
	_, err := api.AuthLogout.Call(r.Context(), h.Services, api.LogoutRequest{Username: c.Username, SID: c.SID})
	return noContent(w, err)
}
