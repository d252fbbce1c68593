// Command serve runs the echo servers for the conformance suites, each on a port of its own, which it prints: one line
// "engine.io PORT" and one "socket.io PORT". It ends with its standard input.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/socketio/echo"
)

func main() {
	for _, s := range []struct {
		name   string
		server *engineio.Server
	}{{"engine.io", echo.NewEngine(echo.Engine())}, {"socket.io", echo.NewSocketIO(echo.Engine(), echo.SocketIO())}} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		mux := http.NewServeMux()
		mux.Handle("/"+s.name+"/", s.server)
		go func() { _ = s.server.Run(context.Background()) }()
		go func() { _ = http.Serve(ln, mux) }() // until the process ends
		fmt.Println(s.name, ln.Addr().(*net.TCPAddr).Port)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}
