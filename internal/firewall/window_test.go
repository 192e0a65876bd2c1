//go:build linux

package firewall

import (
	"sync"
	"testing"
	"time"
)

// TestHostUpdateHasNoWindow: while a policy is replaced again and again, not one packet passes that neither the old nor the new one allows, nor is one lost that both allow.
func TestHostUpdateHasNoWindow(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("udp:198.41.0.4:5000")
	denied, allowed := m.dialUDP("9.9.9.9:5000"), m.dialUDP("198.41.0.4:5000")
	defer denied.Close()
	defer allowed.Close()
	stop := make(chan struct{})
	var flooding sync.WaitGroup
	var sent int
	flooding.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				denied.Write([]byte("no"))
				sent++
			}
		}
	})
	for i := range 100 {
		if i%2 == 0 {
			m.allow("udp:198.41.0.4:5000", "example.com", "tcp:9.9.9.9:5000")
		} else {
			m.allow("10.0.0.0/8", "udp:198.41.0.4:5000")
		}
		allowed.SetReadDeadline(time.Now().Add(patient))
		if _, err := allowed.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := allowed.Read(make([]byte, 10)); err != nil {
			t.Errorf("update %d: what both allow: %v", i, err)
		}
	}
	close(stop)
	flooding.Wait()
	if sent < 100 {
		t.Errorf("only %d packets were sent", sent)
	}
	denied.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := denied.Read(make([]byte, 10)); err == nil {
		t.Errorf("%d bytes came back from where nothing is allowed", n)
	}
	m.allow("udp:9.9.9.9:5000")
	if said := m.exchange(denied); said != passes {
		t.Errorf("once it is allowed: %s", said)
	}
}
