package allinone

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// starting keeps the services from warning about each other while they start: all stores are new, nobody is there yet. Should
// it take long, announce says what is missing.
type starting struct {
	slog.Handler
	over *atomic.Bool
}

// Enabled lets errors pass, and everything once the start is over.
func (h starting) Enabled(ctx context.Context, l slog.Level) bool {
	return (h.over.Load() || l >= slog.LevelError || l < slog.LevelInfo) && h.Handler.Enabled(ctx, l)
}

// WithAttrs keeps the wrapping.
func (h starting) WithAttrs(attrs []slog.Attr) slog.Handler {
	return starting{h.Handler.WithAttrs(attrs), h.over}
}

// WithGroup keeps the wrapping.
func (h starting) WithGroup(name string) slog.Handler {
	return starting{h.Handler.WithGroup(name), h.over}
}
