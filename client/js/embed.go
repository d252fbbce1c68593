// Package js is the JavaScript SDK as files, so that the gateway can serve the very ones that are published.
package js

import "embed"

// Files are the modules that a browser loads; index.js is the entry.
//
//go:embed index.js api.js connection.js join.js seen.js errors.js util.js
var Files embed.FS
