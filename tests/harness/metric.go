package harness

import (
	"strconv"
	"strings"
)

// Metric reads one number from a process's metrics, 0 when it is not there yet. series is as Prometheus writes it.
func (v *View) Metric(admin, series string) float64 {
	v.t.Helper()
	a := v.Do("GET", admin+"/metrics", "", nil)
	for _, line := range strings.Split(string(a.Body), "\n") {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			n, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				v.t.Fatalf("read %q: %v", line, err)
			}
			return n
		}
	}
	return 0
}
