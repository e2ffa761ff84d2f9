// Serves over TLS as the query of each request says, and keeps the marks of marks.py.
//
// Arguments: port, key, certificate, and `cert` to ask for one of the client.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const monotonic = 1

// nowNs returns CLOCK_MONOTONIC, which the standard library does not show.
func nowNs() int64 {
	var at syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, monotonic, uintptr(unsafe.Pointer(&at)), 0)
	return at.Nano()
}

func main() {
	port, key, certificate := os.Args[1], os.Args[2], os.Args[3]
	marks, err := os.OpenFile(os.Getenv("MARKS"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	serve := func(response http.ResponseWriter, request *http.Request) {
		entered := nowNs()
		query := request.URL.Query()
		length, _ := strconv.Atoi(query.Get("body"))
		sleep, _ := strconv.Atoi(query.Get("sleep_ms"))
		got, _ := io.Copy(io.Discard, request.Body)
		read := nowNs()
		time.Sleep(time.Duration(sleep) * time.Millisecond)
		begun := nowNs()
		response.Header().Set("content-length", strconv.Itoa(length))
		response.Write(bytes.Repeat([]byte("r"), length))
		fmt.Fprintf(marks, `{"case":%q,"pid":%d,"entered_ns":%d,"read_ns":%d,"begun_ns":%d,"ended_ns":%d,"status":200,"body_bytes":%d}`+"\n",
			request.Header.Get("x-case"), os.Getpid(), entered, read, begun, nowNs(), got)
	}
	server := http.Server{Addr: "127.0.0.1:" + port, Handler: http.HandlerFunc(serve), TLSConfig: &tls.Config{}}
	if len(os.Args) > 4 && os.Args[4] == "cert" {
		text, err := os.ReadFile(certificate)
		if err != nil {
			log.Fatal(err)
		}
		server.TLSConfig.ClientCAs = x509.NewCertPool()
		server.TLSConfig.ClientCAs.AppendCertsFromPEM(text)
		server.TLSConfig.ClientAuth = tls.RequireAndVerifyClientCert
	}
	log.Fatal(server.ListenAndServeTLS(certificate, key))
}
