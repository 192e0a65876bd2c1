//go:build linux

package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	microvm "github.com/tangle-network/microvm-runtime"
)

// readPrivateKey reads an ed25519 key, as openssl genpkey writes it.
func readPrivateKey(path string) (ed25519.PrivateKey, error) {
	text, err := readKeyFile(path)
	defer clear(text)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, badKey(path, "has no private key in PEM that is not encrypted", "openssl genpkey -algorithm ed25519 makes one")
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, badKey(path, err.Error(), "openssl genpkey -algorithm ed25519 makes one")
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, badKey(path, "has a key of another algorithm", "openssl genpkey -algorithm ed25519 makes one")
	}
	return private, nil
}

// readPublicKeys reads one or more ed25519 keys, as openssl pkey -pubout writes them.
func readPublicKeys(path string) (keys []ed25519.PublicKey, err error) {
	const remedy = "openssl pkey -in KEY -pubout writes that of a private one"
	text, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "PUBLIC KEY" {
			return nil, badKey(path, fmt.Sprintf("has a %.64q", block.Type), remedy)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, badKey(path, err.Error(), remedy)
		}
		public, ok := key.(ed25519.PublicKey)
		if !ok {
			return nil, badKey(path, "has a key of another algorithm", remedy)
		}
		keys = append(keys, public)
	}
	if len(keys) == 0 {
		return nil, badKey(path, "has no public key in PEM", remedy)
	}
	return keys, nil
}

func badKey(path, reason, remedy string) error {
	return fmt.Errorf("%w key: %s: %s; it must be ed25519 (%s)", microvm.ErrInvalid, path, reason, remedy)
}

func readKeyFile(path string) ([]byte, error) {
	const most = 1 << 20
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}
