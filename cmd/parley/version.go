package main

import (
	"fmt"
	"io"
	"runtime/debug"
)

// version prints the commit that the program was built from.
func version(w io.Writer) error {
	rev, when := "unknown revision", ""
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			switch s.Key {
			case "vcs.revision":
				rev = s.Value
			case "vcs.time":
				when = " of " + s.Value
			}
		}
	}
	_, err := fmt.Fprintf(w, "parley, %s%s\n", rev, when)
	return err
}
