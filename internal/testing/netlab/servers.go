//go:build linux

package netlab

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// certificates are the lab's own authority, and what it says of its servers.
type certificates struct {
	pool   *x509.CertPool
	server tls.Certificate
}

// makeCertificates makes one for all names.
func (l *Lab) makeCertificates() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "netlab"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		DNSNames: []string{"example.com", "*.example.com", "other.example", "*.other.example"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	l.certs.pool = x509.NewCertPool()
	l.certs.pool.AddCert(certificate)
	l.certs.server = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return nil
}

// serve begins all servers.
func (l *Lab) serve() error {
	var errs []error
	for _, at := range []netip.Addr{Web, Other, Echo, Metadata, Private} {
		for _, port := range EchoPorts {
			errs = append(errs, l.EchoIn(l.internet, netip.AddrPortFrom(at, port)))
		}
		errs = append(errs, l.web(netip.AddrPortFrom(at, 80), nil))
	}
	config := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		l.note(Arrival{Service: "https", From: addrPort(hello.Conn.RemoteAddr()), To: addrPort(hello.Conn.LocalAddr()), Text: hello.ServerName})
		return &tls.Config{Certificates: []tls.Certificate{l.certs.server}}, nil
	}}
	for _, at := range []netip.Addr{Web, Other} {
		errs = append(errs, l.web(netip.AddrPortFrom(at, 443), config))
	}
	errs = append(errs, l.listen(l.internet, netip.AddrPortFrom(DNS, 853), l.echo), l.resolver())
	return errors.Join(errs...)
}

// EchoIn serves what the echo servers do, udp and tcp, at an address of any namespace, the present one for nil, until the lab ends.
func (l *Lab) EchoIn(ns *netns.Namespace, at netip.AddrPort) error {
	return errors.Join(l.listen(ns, at, l.echo), l.datagrams(ns, at))
}

func addrPort(a net.Addr) netip.AddrPort {
	parsed, _ := netip.ParseAddrPort(a.String())
	return netip.AddrPortFrom(parsed.Addr().Unmap(), parsed.Port())
}

// listener makes a socket that takes connections.
func (l *Lab) listener(ns *netns.Namespace, at netip.AddrPort) (listener net.Listener, err error) {
	err = ns.Do(func() (err error) {
		listener, err = net.Listen("tcp4", at.String())
		return err
	})
	if err == nil {
		l.closeLater(listener)
	}
	return listener, err
}

func (l *Lab) packets(ns *netns.Namespace, at netip.AddrPort) (conn *net.UDPConn, err error) {
	err = ns.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err == nil {
		l.closeLater(conn)
	}
	return conn, err
}

// listen hands connections to handle until the lab ends.
func (l *Lab) listen(ns *netns.Namespace, at netip.AddrPort, handle func(net.Conn)) error {
	listener, err := l.listener(ns, at)
	if err != nil {
		return err
	}
	l.servers.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.closeLater(conn)
			l.servers.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	return nil
}

// echo notes the first line of a connection, and sends back all lines.
func (l *Lab) echo(conn net.Conn) {
	lines := bufio.NewReader(conn)
	for first := true; ; first = false {
		line, err := lines.ReadString('\n')
		if first && line != "" {
			l.note(Arrival{Service: "tcp", From: addrPort(conn.RemoteAddr()), To: addrPort(conn.LocalAddr()), Text: line[:max(0, len(line)-1)]})
		}
		if err != nil {
			return
		}
		if _, err := io.WriteString(conn, line); err != nil {
			return
		}
	}
}

// datagrams notes each, and sends it back.
func (l *Lab) datagrams(ns *netns.Namespace, at netip.AddrPort) error {
	conn, err := l.packets(ns, at)
	if err != nil {
		return err
	}
	l.servers.Go(func() {
		data := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(data)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				l.note(Arrival{Service: "udp", From: from, To: at, Text: string(data[:n])})
				conn.WriteToUDPAddrPort(data[:n], from) //nolint // the guest may have no way back
			}
		}
	})
	return nil
}

// web serves HTTP: any path is answered by "HOST PATH".
func (l *Lab) web(at netip.AddrPort, config *tls.Config) error {
	listener, err := l.listener(l.internet, at)
	if err != nil {
		return err
	}
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	server := &http.Server{ReadHeaderTimeout: patience, ErrorLog: discard(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _ := netip.ParseAddrPort(r.RemoteAddr)
		l.note(Arrival{Service: "http", From: from, To: at, Text: r.URL.Path})
		fmt.Fprintf(w, "%s %s", r.Host, r.URL.Path)
	})}
	l.closeLater(server)
	l.servers.Go(func() { server.Serve(listener) })
	return nil
}

// client speaks HTTP from a namespace, to addresses that a URL's host is looked up in.
func client(dial func(ctx context.Context, network, address string) (net.Conn, error), pool *x509.CertPool) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
}
