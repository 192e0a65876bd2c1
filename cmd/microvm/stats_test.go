//go:build linux

package main

import (
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

func TestPrintStats(t *testing.T) {
	memory := &microvm.MemoryStats{PageSize: 4096, Pages: 65536, Faults: 300, Copied: 299, Prefetched: 1200, P50: 3 * time.Microsecond, P99: 40 * time.Microsecond, Prefetch: 7 * time.Millisecond}
	for want, stats := range map[string]microvm.Stats{
		"the machine has no network interface\n": {},
		`the machine has no network interface

MEMORY           PAGES  
all              65536  
waited for       300    
copied then      299    
prefetched       1200   
given up         0      
asked for again  0      

WAIT         TIME  
p50          3µs   
p99          40µs  
working set  7ms   
`: {Memory: memory},
	} {
		var out strings.Builder
		if err := printStats(&out, stats); err != nil || out.String() != want {
			t.Errorf("%v, %q\nwant %q", err, out.String(), want)
		}
	}
}
