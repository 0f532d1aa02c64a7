/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>

#include "pkg/http/http.h"
#include "pkg/http/scan.h"
#include "test/fuzz/http_reader.h"

/* ---- streams and what they mean ---- */

#define HOST "Host: h\r\n"
#define GET  "GET / HTTP/1.1\r\n" HOST
#define POST "POST / HTTP/1.1\r\n" HOST
#define OK   "HTTP/1.1 200 OK\r\n"

struct stream {
	const char *name;
	const char *method; /* of the request that responses answer */
	struct span bytes;
	const char *expected; /* transcript */
};

#define S(literal) SPAN(literal)

/* What programs send. */
static const struct stream real[] = {
	{"curl", "",
		S("GET /index.html?q=1 HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: "
		  "curl/7.88.1\r\n"
		  "Accept: */*\r\n\r\n"),
		"GET /index.html?q=1 "
		"1.1|Host=localhost:8000|User-Agent=curl/7.88.1|Accept=*/*|none\n"},
	{"curl -d", "",
		S("POST /form HTTP/1.1\r\nHost: [::1]:8000\r\nUser-Agent: curl/8.14.1\r\nAccept: "
		  "*/*\r\n"
		  "Content-Length: 7\r\nContent-Type: "
		  "application/x-www-form-urlencoded\r\n\r\na=1&b=2"),
		"POST /form 1.1|Host=[::1]:8000|User-Agent=curl/8.14.1|Accept=*/*|Content-Length=7|"
		"Content-Type=application/x-www-form-urlencoded|length=a=1&b=2\n"},
	{"curl -T -, 100-continue", "",
		S("PUT /up HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
		  "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
		  "a\r\n0123456789\r\n0\r\n\r\n"),
		"PUT /up 1.1|Host=a|User-Agent=curl/7.88.1|Accept=*/*|Transfer-Encoding=chunked|"
		"Expect=100-continue|chunked=0123456789\n"},
	{"the answers to it", "PUT",
		S("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nServer: SimpleHTTP\r\n"
		  "Content-Length: 2\r\n\r\nok"),
		"100 1.1|none\n201 1.1|Server=SimpleHTTP|Content-Length=2|length=ok\n"},
	{"Firefox", "",
		S("GET /en-US/docs/Web HTTP/1.1\r\nHost: developer.mozilla.org\r\nUser-Agent: "
		  "Mozilla/5.0 "
		  "(X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: text/html,"
		  "application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,"
		  "en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nConnection: "
		  "keep-alive\r\n"
		  "Cookie: a=b; c=\"d e\"\r\nUpgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: "
		  "document\r\n"
		  "Priority: u=0, i\r\n\r\n"),
		"GET /en-US/docs/Web 1.1|Host=developer.mozilla.org|User-Agent=Mozilla/5.0 (X11; "
		"Linux "
		"x86_64; rv:128.0) Gecko/20100101 "
		"Firefox/128.0|Accept=text/html,application/xhtml+xml,"
		"application/xml;q=0.9,*/"
		"*;q=0.8|Accept-Language=en-US,en;q=0.5|Accept-Encoding=gzip, "
		"deflate, br, zstd|Connection=keep-alive|Cookie=a=b; c=\"d e\"|"
		"Upgrade-Insecure-Requests=1|Sec-Fetch-Dest=document|Priority=u=0, i|none\n"},
	{"Chromium", "",
		S("GET /favicon.ico HTTP/1.1\r\nHost: 10.0.0.1\r\nConnection: keep-alive\r\n"
		  "sec-ch-ua: \"Chromium\";v=\"130\", "
		  "\"Not?A_Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\n"
		  "sec-ch-ua-platform: \"Linux\"\r\nDNT: 1\r\nAccept: "
		  "image/avif,image/webp,*/*;q=0.8\r\n"
		  "Referer: http://10.0.0.1/\r\n\r\n"),
		"GET /favicon.ico 1.1|Host=10.0.0.1|Connection=keep-alive|sec-ch-ua=\"Chromium\";v="
		"\"130\", "
		"\"Not?A_Brand\";v=\"99\"|sec-ch-ua-mobile=?0|sec-ch-ua-platform=\"Linux\"|DNT=1|"
		"Accept=image/avif,image/webp,*/*;q=0.8|Referer=http://10.0.0.1/|none\n"},
	{"nginx", "GET",
		S("HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 22:00:21 "
		  "GMT\r\n"
		  "Content-Type: text/html; charset=utf-8\r\nContent-Length: 15\r\nLast-Modified: "
		  "Mon, 23 "
		  "Nov 2026 21:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"65f0a0b0-f\"\r\n"
		  "Accept-Ranges: bytes\r\n\r\n<html>\r\n</html>"),
		"200 1.1|Server=nginx/1.22.1|Date=Mon, 23 Nov 2026 22:00:21 "
		"GMT|Content-Type=text/html; "
		"charset=utf-8|Content-Length=15|Last-Modified=Mon, 23 Nov 2026 21:00:00 GMT|"
		"Connection=keep-alive|ETag=\"65f0a0b0-f\"|Accept-Ranges=bytes|"
		"length=<html>\\x0d\\x0a</html>\n"},
	{"node", "GET",
		S("HTTP/1.1 200 OK\r\nX-Powered-By: Express\r\nContent-Type: application/json; "
		  "charset=utf-8\r\nETag: W/\"2-l9Fw4VUO7kr8CvBlt4zaMCqXZ0w\"\r\nDate: Mon, 23 Nov "
		  "2026 "
		  "22:00:21 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n"
		  "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n5\r\nhello\r\n0\r\n\r\n"),
		"200 1.1|X-Powered-By=Express|Content-Type=application/json; charset=utf-8|"
		"ETag=W/\"2-l9Fw4VUO7kr8CvBlt4zaMCqXZ0w\"|Date=Mon, 23 Nov 2026 22:00:21 GMT|"
		"Connection=keep-alive|Keep-Alive=timeout=5|Transfer-Encoding=chunked|"
		"chunked={}hello\n"},
	{"python http.server", "GET",
		S("HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6 Python/3.11.2\r\nContent-type: "
		  "text/html\r\n"
		  "Content-Length: 3\r\n\r\nabc"),
		"200 1.0|Server=SimpleHTTP/0.6 "
		"Python/3.11.2|Content-type=text/html|Content-Length=3|"
		"last|length=abc\n"},
	{"ab", "",
		S("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: 127.0.0.1:80\r\nUser-Agent: "
		  "ApacheBench/2.3\r\nAccept: */*\r\n\r\n"),
		"GET / 1.0|Connection=Keep-Alive|Host=127.0.0.1:80|User-Agent=ApacheBench/2.3|"
		"Accept=*/*|none\n"},
	{"kubectl watch", "",
		S("GET /api/v1/pods?watch=true HTTP/1.1\r\nHost: 10.96.0.1:443\r\nUser-Agent: "
		  "kubectl/"
		  "v1.31.0 (linux/amd64)\r\nAuthorization: Bearer x.y.z\r\nAccept-Encoding: "
		  "gzip\r\n\r\n"),
		"GET /api/v1/pods?watch=true 1.1|Host=10.96.0.1:443|User-Agent=kubectl/v1.31.0 "
		"(linux/"
		"amd64)|Authorization=Bearer x.y.z|Accept-Encoding=gzip|none\n"},
	{"websocket", "",
		S("GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: "
		  "13\r\n\r\n"),
		"GET /chat 1.1|Host=h|Upgrade=websocket|Connection=Upgrade|"
		"Sec-WebSocket-Key=dGhlIHNhbXBsZSBub25jZQ==|Sec-WebSocket-Version=13|none\n"},
	{"and its answer", "GET",
		S("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
		  "Upgrade\r\n\r\n"
		  "\x81\x05hello"),
		"101 1.1|Upgrade=websocket|Connection=Upgrade|tunnel\n"},
};

/* What the issue and the RFCs name. */
static const struct stream rules[] = {
	/* start lines */
	{"absolute-form", "", S("GET http://h/x HTTP/1.1\r\n" HOST "\r\n"),
		"GET http://h/x 1.1|Host=h|none\n"},
	{"asterisk-form", "", S("OPTIONS * HTTP/1.1\r\n" HOST "\r\n"),
		"OPTIONS * 1.1|Host=h|none\n"},
	{"authority-form", "", S("CONNECT h:443 HTTP/1.1\r\n" HOST "\r\n"),
		"CONNECT h:443 1.1|Host=h|none\n"},
	{"authority-form, IPv6", "", S("CONNECT [::1]:443 HTTP/1.1\r\n" HOST "\r\n"),
		"CONNECT [::1]:443 1.1|Host=h|none\n"},
	{"CONNECT without port", "", S("CONNECT h HTTP/1.1\r\n" HOST "\r\n"),
		"CONNECT h 1.1|Host=h|!START_LINE|none\n"},
	{"CONNECT without host", "", S("CONNECT :443 HTTP/1.1\r\n" HOST "\r\n"),
		"CONNECT :443 1.1|Host=h|!START_LINE|none\n"},
	{"CONNECT with an empty port", "", S("CONNECT h: HTTP/1.1\r\n" HOST "\r\n"),
		"CONNECT h: 1.1|Host=h|!START_LINE|none\n"},
	{"CONNECT to a path", "", S("CONNECT / HTTP/1.1\r\n" HOST "\r\n"),
		"CONNECT / 1.1|Host=h|!START_LINE|none\n"},
	{"asterisk without OPTIONS", "", S("GET * HTTP/1.1\r\n" HOST "\r\n"),
		"GET * 1.1|Host=h|!START_LINE|none\n"},
	{"more than an asterisk", "", S("OPTIONS *x HTTP/1.1\r\n" HOST "\r\n"),
		"OPTIONS *x 1.1|Host=h|!START_LINE|none\n"},
	{"target without slash", "", S("GET x HTTP/1.1\r\n" HOST "\r\n"),
		"GET x 1.1|Host=h|!START_LINE|none\n"},
	{"scheme and nothing", "", S("GET http: HTTP/1.1\r\n" HOST "\r\n"),
		"GET http: 1.1|Host=h|!START_LINE|none\n"},
	{"unknown method", "", S("BREW /pot-0 HTTP/1.1\r\n" HOST "\r\n"),
		"BREW /pot-0 1.1|Host=h|none\n"},
	{"lower-case method", "", S("get / HTTP/1.1\r\n" HOST "\r\n"), "get / 1.1|Host=h|none\n"},
	{"method of odd characters", "", S("!#$%&'*+-.^_`|~ / HTTP/1.1\r\n" HOST "\r\n"),
		"!#$%&'*+-.^_`|~ / 1.1|Host=h|none\n"},
	{"method that is no token", "", S("G(T / HTTP/1.1\r\n" HOST "\r\n"),
		"G(T / 1.1|Host=h|!START_LINE|none\n"},
	{"two spaces before the target", "", S("GET  / HTTP/1.1\r\n" HOST "\r\n"),
		"GET / 1.1|Host=h|!START_LINE|none\n"},
	{"two spaces before the version", "", S("GET /  HTTP/1.1\r\n" HOST "\r\n"),
		"GET / 1.1|Host=h|!START_LINE|none\n"},
	{"space behind the version", "", S("GET / HTTP/1.1 \r\n" HOST "\r\n"),
		"GET / 1.1|Host=h|!START_LINE|none\n"},
	{"space before the method", "", S(" GET / HTTP/1.1\r\n" HOST "\r\n"),
		"GET / 1.1|Host=h|!START_LINE|none\n"},
	{"tab before the target", "", S("GET\t/ HTTP/1.1\r\n" HOST "\r\n"),
		"GET / 1.1|Host=h|!START_LINE|none\n"},
	{"tab before the version", "", S("GET /\tHTTP/1.1\r\n" HOST "\r\n"),
		"GET / 1.1|Host=h|!START_LINE|none\n"},
	{"space in the target", "", S("GET /a b c HTTP/1.1\r\n" HOST "\r\n"),
		"GET /a b c 1.1|Host=h|!START_LINE|none\n"},
	{"tab in the target", "", S("GET /a\tb HTTP/1.1\r\n" HOST "\r\n"),
		"GET /a\\x09b 1.1|Host=h|!START_LINE|none\n"},
	{"no target", "", S("GET HTTP/1.1\r\n" HOST "\r\n"), "GET  1.1|Host=h|!START_LINE|none\n"},
	{"a method alone", "", S("GET\r\n" HOST "\r\n"), "GET  0.9|Host=h|!START_LINE|last|none\n"},
	{"blanks alone", "", S(" \t \r\n" HOST "\r\n"), "  0.9|Host=h|!START_LINE|last|none\n"},
	{"bytes beyond ASCII in the target", "", S("GET /\xc3\xa4\xff HTTP/1.1\r\n" HOST "\r\n"),
		"GET /\\xc3\\xa4\\xff 1.1|Host=h|none\n"},
	{"NUL in the target", "", S("GET /a\0b HTTP/1.1\r\n" HOST "\r\n"),
		"GET /a\\x00b 1.1|Host=h|!CONTROL|none\n"},
	{"bare CR in the target", "", S("GET /a\rb HTTP/1.1\r\n" HOST "\r\n"),
		"GET /a\\x0db 1.1|Host=h|!CONTROL|none\n"},
	{"DEL in the method", "", S("G\x7fT / HTTP/1.1\r\n" HOST "\r\n"),
		"G\\x7fT / 1.1|Host=h|!CONTROL|none\n"},
	{"HTTP/0.9", "", S("GET /\r\n\r\n"), "GET / 0.9|!VERSION|last|none\n"},
	{"HTTP/0.9 does not persist", "", S("GET /\r\nConnection: keep-alive\r\n\r\n"),
		"GET / 0.9|Connection=keep-alive|!VERSION|last|none\n"},
	{"HTTP/1.10", "", S("GET / HTTP/1.10\r\n" HOST "\r\n"),
		"GET / 1.10|Host=h|!VERSION|none\n"},
	{"HTTP/1.2", "", S("GET / HTTP/1.2\r\n" HOST "\r\n"), "GET / 1.2|Host=h|!VERSION|none\n"},
	{"HTTP/2.0", "", S("GET / HTTP/2.0\r\n" HOST "\r\n"), "GET / 2.0|Host=h|!VERSION|none\n"},
	{"HTTP/01.1", "", S("GET / HTTP/01.1\r\n" HOST "\r\n"), "GET / 1.1|Host=h|!VERSION|none\n"},
	{"HTTP/1.01", "", S("GET / HTTP/1.01\r\n" HOST "\r\n"), "GET / 1.1|Host=h|!VERSION|none\n"},
	{"HTTP/1", "", S("GET / HTTP/1\r\n\r\n"), "GET / 1.0|!VERSION|last|none\n"},
	{"HTTP/1.1x", "", S("GET / HTTP/1.1x\r\n" HOST "\r\n"), "GET / 1.1|Host=h|!VERSION|none\n"},
	{"HTTP/1,1", "", S("GET / HTTP/1,1\r\n" HOST "\r\n"),
		"GET / 1.0|Host=h|!VERSION|last|none\n"},
	{"HTTP/ a huge number", "", S("GET / HTTP/99999999999999999999.1\r\n" HOST "\r\n"),
		"GET / 255.1|Host=h|!VERSION|none\n"},
	{"http/1.1", "", S("GET / http/1.1\r\n" HOST "\r\n"), "GET / 1.1|Host=h|!VERSION|none\n"},
	{"HTTP/", "", S("GET / HTTP/\r\n\r\n"), "GET / 0.9|!VERSION|last|none\n"},
	{"HTTP/2's preface", "", S("PRI * HTTP/2.0\r\n\r\n"), "PRI * 2.0|!VERSION|none\n"},
	{"ICY", "GET", S("ICY 200 OK\r\n\r\n"), "ICY 200 OK 0.9|!START_LINE|last|none\n"},
	{"empty lines before", "", S("\r\n\n\r\n" GET "\r\n"), "GET / 1.1|Host=h|none\n"},
	{"bare LF", "", S("GET / HTTP/1.1\nHost: h\nA: b\n\n"), "GET / 1.1|Host=h|A=b|none\n"},
	{"bare LF at the end only", "", S(GET "\n"), "GET / 1.1|Host=h|none\n"},
	{"LF, then CR LF", "", S("GET / HTTP/1.1\nHost: h\n\r\n"), "GET / 1.1|Host=h|none\n"},
	{"a line of CRs is no empty one", "", S(GET "\r\r\n\r\n"),
		"GET / 1.1|Host=h|\\x0d=|!CONTROL|none\n"},
	{"status without reason", "GET", S("HTTP/1.1 204 \r\n\r\n"), "204 1.1|none\n"},
	{"status without blank", "GET", S("HTTP/1.1 204\r\n\r\n"), "204 1.1|none\n"},
	{"reason of any bytes", "GET", S("HTTP/1.1 204 \xfc: (x)\t!\r\n\r\n"), "204 1.1|none\n"},
	{"NUL in the reason", "GET", S("HTTP/1.1 204 a\0b\r\n\r\n"), "204 1.1|!CONTROL|none\n"},
	{"status of two digits", "GET", S("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
		"0 1.1|Content-Length=0|!START_LINE|none\n"},
	{"status of four digits", "GET", S("HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
		"0 1.1|Content-Length=0|!START_LINE|none\n"},
	{"no status", "GET", S("HTTP/1.1\r\n\r\n"), "0 1.1|!START_LINE|none\n"},
	{"status 099", "GET", S("HTTP/1.1 099 x\r\nContent-Length: 0\r\n\r\n"),
		"99 1.1|Content-Length=0|!START_LINE|none\n"},
	{"status 600", "GET", S("HTTP/1.1 600 x\r\nContent-Length: 0\r\n\r\n"),
		"600 1.1|Content-Length=0|!START_LINE|none\n"},
	{"two spaces before the status", "GET", S("HTTP/1.1  204 x\r\n\r\n"),
		"204 1.1|!START_LINE|none\n"},
	{"tab before the status", "GET", S("HTTP/1.1\t204 x\r\n\r\n"),
		"204 1.1|!START_LINE|none\n"},
	{"version 2 of a response", "GET", S("HTTP/2 204 x\r\n\r\n"), "204 2.0|!VERSION|none\n"},
	{"http/1.1 of a response", "GET", S("http/1.1 204 x\r\n\r\n"), "204 1.1|!VERSION|none\n"},

	/* fields */
	{"no field", "GET", S("HTTP/1.1 204 No Content\r\n\r\n"), "204 1.1|none\n"},
	{"repeated names, empty values, blanks", "",
		S(GET "A: 1\r\nB:\r\nA:2\r\nC: \t \r\nD:\t x y \t\r\n\r\n"),
		"GET / 1.1|Host=h|A=1|B=|A=2|C=|D=x y|none\n"},
	{"colons in values", "", S(GET "A: b: c\r\nD::\r\n\r\n"),
		"GET / 1.1|Host=h|A=b: c|D=:|none\n"},
	{"any byte from 0x80", "", S(GET "A: \x80\xff\xc3\xa9\r\n\r\n"),
		"GET / 1.1|Host=h|A=\\x80\\xff\\xc3\\xa9|none\n"},
	{"tab in a value", "", S(GET "A: b\tc\r\n\r\n"), "GET / 1.1|Host=h|A=b\\x09c|none\n"},
	{"underscore in a name, digits, dots", "", S(GET "a_b.c1-D~: x\r\n\r\n"),
		"GET / 1.1|Host=h|a_b.c1-D~=x|none\n"},
	{"NUL in a value", "", S(GET "A: b\0c\r\n\r\n"),
		"GET / 1.1|Host=h|A=b\\x00c|!CONTROL|none\n"},
	{"bare CR in a value", "", S(GET "A: b\rc\r\n\r\n"),
		"GET / 1.1|Host=h|A=b\\x0dc|!CONTROL|none\n"},
	{"CR CR LF", "", S(GET "A: b\r\r\n\r\n"), "GET / 1.1|Host=h|A=b\\x0d|!CONTROL|none\n"},
	{"VT in a value", "", S(GET "A: b\x0b\r\n\r\n"),
		"GET / 1.1|Host=h|A=b\\x0b|!CONTROL|none\n"},
	{"DEL in a value", "",
		S(GET "A: b\x7f"
		      "c\r\n\r\n"),
		"GET / 1.1|Host=h|A=b\\x7fc|!CONTROL|none\n"},
	{"control character in a name", "", S(GET "A\x01: b\r\n\r\n"),
		"GET / 1.1|Host=h|A\\x01=b|!CONTROL|none\n"},
	{"no colon", "", S(GET "abc def\r\nX: y\r\n\r\n"),
		"GET / 1.1|Host=h|abc def=|X=y|!FIELD|none\n"},
	{"no name", "", S(GET ": b\r\n\r\n"), "GET / 1.1|Host=h|=b|!FIELD|none\n"},
	{"illegal name", "", S(GET "A B: c\r\n\r\n"), "GET / 1.1|Host=h|A B=c|!FIELD|none\n"},
	{"name beyond ASCII", "", S(GET "\xc3\xa9: c\r\n\r\n"),
		"GET / 1.1|Host=h|\\xc3\\xa9=c|!FIELD|none\n"},
	{"space before the colon", "", S(GET "A : b\r\n\r\n"),
		"GET / 1.1|Host=h|A=b|!FIELD|none\n"},
	{"space before the colon of a length", "",
		S(POST "Content-Length \t: 3\r\n\r\nabc" GET "\r\n"),
		"POST / 1.1|Host=h|Content-Length=3|!FIELD|length=abc\nGET / 1.1|Host=h|none\n"},
	{"folding", "", S(GET "A: b\r\n c\r\n\td \r\nE: f\r\n\r\n"),
		"GET / 1.1|Host=h|A=b\\x0d\\x0a c\\x0d\\x0a\\x09d|E=f|!FOLDING|none\n"},
	{"folding of an empty value", "", S(GET "A:\r\n b\r\n\r\n"),
		"GET / 1.1|Host=h|A=b|!FOLDING|none\n"},
	{"folding with a line of blanks", "", S(GET "A: b\r\n \r\n c\r\n  \r\n\r\n"),
		"GET / 1.1|Host=h|A=b\\x0d\\x0a \\x0d\\x0a c|!FOLDING|none\n"},
	{"folding with bare LF", "", S("GET / HTTP/1.1\nHost: h\nA: b\n c\n\n"),
		"GET / 1.1|Host=h|A=b\\x0a c|!FOLDING|none\n"},
	{"first line indented", "", S("GET / HTTP/1.1\r\n A: b\r\n" HOST "\r\n"),
		"GET / 1.1|A=b|Host=h|!FOLDING|none\n"},
	{"first line indented, a length", "",
		S("POST / HTTP/1.1\r\n Content-Length: 3\r\n" HOST "\r\n"),
		"POST / 1.1|Content-Length=3|Host=h|!FOLDING|none\n"},
	{"first line of blanks", "", S("GET / HTTP/1.1\r\n \t\r\n" HOST "\r\n"),
		"GET / 1.1|Host=h|!FOLDING|none\n"},
	{"a folded length", "", S(POST "Content-Length: 1\r\n 2\r\n\r\n"),
		"POST / 1.1|Host=h|Content-Length=1\\x0d\\x0a 2|!FOLDING|none\n"},
	{"a length folded from nothing", "", S(POST "Content-Length:\r\n 2\r\n\r\nab"),
		"POST / 1.1|Host=h|Content-Length=2|!FOLDING|length=ab\n"},

	/* Host */
	{"no Host", "", S("GET / HTTP/1.1\r\n\r\n"), "GET / 1.1|!HOST|none\n"},
	{"no Host in HTTP/1.0", "", S("GET / HTTP/1.0\r\n\r\n"), "GET / 1.0|last|none\n"},
	{"empty Host", "", S("GET / HTTP/1.1\r\nHost:\r\n\r\n"), "GET / 1.1|Host=|none\n"},
	{"two Hosts", "", S(GET "host: g\r\n\r\n"), "GET / 1.1|Host=h|host=g|!HOST|none\n"},
	{"two equal Hosts", "", S(GET HOST "\r\n"), "GET / 1.1|Host=h|Host=h|!HOST|none\n"},
	{"two Hosts in HTTP/1.0", "", S("GET / HTTP/1.0\r\n" HOST HOST "\r\n"),
		"GET / 1.0|Host=h|Host=h|!HOST|last|none\n"},
	{"Host with a path", "", S("GET / HTTP/1.1\r\nHost: h/x\r\n\r\n"),
		"GET / 1.1|Host=h/x|!HOST|none\n"},
	{"Host with userinfo", "", S("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
		"GET / 1.1|Host=a@b|!HOST|none\n"},
	{"Host with a bad port", "", S("GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n"),
		"GET / 1.1|Host=a:8x|!HOST|none\n"},
	{"Host with an empty port", "", S("GET / HTTP/1.1\r\nHost: a:\r\n\r\n"),
		"GET / 1.1|Host=a:|none\n"},
	{"Host with an open bracket", "", S("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
		"GET / 1.1|Host=[::1|!HOST|none\n"},
	{"Host with more behind a bracket", "", S("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n"),
		"GET / 1.1|Host=[::1]x|!HOST|none\n"},
	{"two Hosts of a response", "GET", S("HTTP/1.1 204 x\r\nHost: a/b\r\nHost: c\r\n\r\n"),
		"204 1.1|Host=a/b|Host=c|none\n"},

	/* Content-Length */
	{"length", "", S(POST "content-LENGTH: 5\r\n\r\nhello" GET "\r\n"),
		"POST / 1.1|Host=h|content-LENGTH=5|length=hello\nGET / 1.1|Host=h|none\n"},
	{"length 0", "", S(POST "Content-Length: 0\r\n\r\n" GET "\r\n"),
		"POST / 1.1|Host=h|Content-Length=0|none\nGET / 1.1|Host=h|none\n"},
	{"leading zeros", "", S(POST "Content-Length: 0000000000000000000000005\r\n\r\nhello"),
		"POST / 1.1|Host=h|Content-Length=0000000000000000000000005|length=hello\n"},
	{"cut short", "", S(POST "Content-Length: 5\r\n\r\nhell"),
		"POST / 1.1|Host=h|Content-Length=5|length=hell~\n"},
	{"equal lengths", "", S(POST "Content-Length: 1\r\nContent-Length: 01\r\n\r\nx"),
		"POST / 1.1|Host=h|Content-Length=1|Content-Length=01|length=x\n"},
	{"equal lengths in a list", "", S(POST "Content-Length: 1, 1 ,1\r\n\r\nx"),
		"POST / 1.1|Host=h|Content-Length=1, 1 ,1|length=x\n"},
	{"different lengths", "", S(POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n"),
		"POST / 1.1|Host=h|Content-Length=5|Content-Length=6|!LENGTHS|none\n"},
	{"different lengths in a list", "", S(POST "Content-Length: 5, 6\r\n\r\n"),
		"POST / 1.1|Host=h|Content-Length=5, 6|!LENGTHS|none\n"},
	{"different lengths of a response", "GET",
		S(OK "Content-Length: 5\r\nContent-Length: 6\r\n\r\n"),
		"200 1.1|Content-Length=5|Content-Length=6|!LENGTHS|none\n"},
	{"plus", "", S(POST "Content-Length: +5\r\n\r\n"),
		"POST / 1.1|Host=h|Content-Length=+5|!LENGTH|none\n"},
	{"minus", "", S(POST "Content-Length: -5\r\n\r\n"),
		"POST / 1.1|Host=h|Content-Length=-5|!LENGTH|none\n"},
	{"hex", "", S(POST "Content-Length: 0x5\r\n\r\n"),
		"POST / 1.1|Host=h|Content-Length=0x5|!LENGTH|none\n"},
	{"space", "", S(POST "Content-Length: 5 5\r\n\r\n"),
		"POST / 1.1|Host=h|Content-Length=5 5|!LENGTH|none\n"},
	{"no length in it", "", S(POST "Content-Length:\r\n\r\n"),
		"POST / 1.1|Host=h|Content-Length=|!LENGTH|none\n"},
	{"comma", "", S(POST "Content-Length: 5,\r\n\r\n"),
		"POST / 1.1|Host=h|Content-Length=5,|!LENGTH|none\n"},
	{"2^63 - 1", "", S(POST "Content-Length: 9223372036854775807\r\n\r\nx"),
		"POST / 1.1|Host=h|Content-Length=9223372036854775807|length=x~\n"},
	{"2^63", "", S(POST "Content-Length: 9223372036854775808\r\n\r\n"),
		"POST / 1.1|Host=h|Content-Length=9223372036854775808|!LENGTH|none\n"},
	{"2^64 + 5", "", S(POST "Content-Length: 18446744073709551621\r\n\r\n"),
		"POST / 1.1|Host=h|Content-Length=18446744073709551621|!LENGTH|none\n"},

	/* Transfer-Encoding */
	{"both", "",
		S(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" GET
		       "\r\n"),
		"POST / 1.1|Host=h|Content-Length=5|Transfer-Encoding=chunked|!LENGTH_AND_CHUNKED|"
		"chunked=\nGET / 1.1|Host=h|none\n"},
	{"both, of a response", "GET",
		S(OK "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
		"200 "
		"1.1|Transfer-Encoding=chunked|Content-Length=5|!LENGTH_AND_CHUNKED|chunked=\n"},
	{"gzip, chunked", "", S(POST "Transfer-Encoding: gzip ,\tChunked\r\n\r\n0\r\n\r\n"),
		"POST / 1.1|Host=h|Transfer-Encoding=gzip ,\\x09Chunked|chunked=\n"},
	{"gzip, chunked in two fields", "",
		S(POST "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		"POST / 1.1|Host=h|Transfer-Encoding=gzip|Transfer-Encoding=chunked|chunked=\n"},
	{"chunked, gzip", "", S(POST "Transfer-Encoding: chunked, gzip\r\n\r\n"),
		"POST / 1.1|Host=h|Transfer-Encoding=chunked, gzip|!TRANSFER_ENCODING|none\n"},
	{"chunked, gzip of a response", "GET", S(OK "Transfer-Encoding: chunked, gzip\r\n\r\nxyz"),
		"200 1.1|Transfer-Encoding=chunked, gzip|!TRANSFER_ENCODING|close=xyz\n"},
	{"chunked twice", "", S(POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
		"POST / 1.1|Host=h|Transfer-Encoding=chunked, "
		"chunked|!TRANSFER_ENCODING|chunked=\n"},
	{"chunked, then identity", "",
		S(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: "
		       "identity\r\n\r\n0\r\n\r\n"),
		"POST / 1.1|Host=h|Transfer-Encoding=chunked|Transfer-Encoding=identity|"
		"!TRANSFER_ENCODING|chunked=\n"},
	{"identity", "GET", S(OK "Transfer-Encoding: identity\r\nContent-Length: 1\r\n\r\nx"),
		"200 "
		"1.1|Transfer-Encoding=identity|Content-Length=1|!TRANSFER_ENCODING|length=x\n"},
	{"xchunked", "", S(POST "Transfer-Encoding: xchunked\r\n\r\n"),
		"POST / 1.1|Host=h|Transfer-Encoding=xchunked|!TRANSFER_ENCODING|none\n"},
	{"chunked with a parameter", "", S(POST "Transfer-Encoding: chunked;a=b\r\n\r\n"),
		"POST / 1.1|Host=h|Transfer-Encoding=chunked;a=b|!TRANSFER_ENCODING|none\n"},
	{"quoted", "", S(POST "Transfer-Encoding: \"chunked\"\r\n\r\n"),
		"POST / 1.1|Host=h|Transfer-Encoding=\"chunked\"|!TRANSFER_ENCODING|none\n"},
	{"chunked and VT", "", S(POST "Transfer-Encoding: chunked\x0b\r\n\r\n"),
		"POST / 1.1|Host=h|Transfer-Encoding=chunked\\x0b|!CONTROL|none\n"},
	{"no coding", "", S(POST "Transfer-Encoding:\r\n\r\n"),
		"POST / 1.1|Host=h|Transfer-Encoding=|!TRANSFER_ENCODING|none\n"},
	{"empty elements", "", S(POST "Transfer-Encoding: , chunked,\r\n\r\n0\r\n\r\n"),
		"POST / 1.1|Host=h|Transfer-Encoding=, chunked,|!TRANSFER_ENCODING|chunked=\n"},
	{"gzip of a request", "", S(POST "Transfer-Encoding: gzip\r\n\r\n"),
		"POST / 1.1|Host=h|Transfer-Encoding=gzip|!TRANSFER_ENCODING|none\n"},
	{"gzip of a response", "GET", S(OK "Transfer-Encoding: gzip\r\n\r\nxyz"),
		"200 1.1|Transfer-Encoding=gzip|close=xyz\n"},
	{"HTTP/1.0", "",
		S("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
		"POST / 1.0|Transfer-Encoding=chunked|!TRANSFER_ENCODING|last|chunked=x\n"},

	{"a chunk of 2^64 - 1", "",
		S(POST "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab"),
		"POST / 1.1|Host=h|Transfer-Encoding=chunked|chunked=ab~\n"},

	/* framing */
	{"HEAD", "HEAD", S(OK "Content-Length: 5\r\n\r\n" OK "Transfer-Encoding: chunked\r\n\r\n"),
		"200 1.1|Content-Length=5|none\n200 1.1|Transfer-Encoding=chunked|none\n"},
	{"head is not HEAD", "head", S(OK "Content-Length: 5\r\n\r\nhello"),
		"200 1.1|Content-Length=5|length=hello\n"},
	{"1xx, 204, 304", "GET",
		S("HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n"
		  "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"
		  "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n" OK
		  "Content-Length: 1\r\n\r\nx"),
		"103 1.1|Content-Length=5|none\n304 1.1|Content-Length=5|none\n"
		"204 1.1|Transfer-Encoding=chunked|none\n200 1.1|Content-Length=1|length=x\n"},
	{"close", "GET", S(OK "Connection: close\r\n\r\nhello\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
		"200 1.1|Connection=close|last|close=hello\\x0d\\x0a\\x0d\\x0aHTTP/1.1 200 OK"
		"\\x0d\\x0a\\x0d\\x0a\n"},
	{"close with nothing", "GET", S(OK "\r\n"), "200 1.1|close=\n"},
	{"no request seen", "", S(OK "Content-Length: 1\r\n\r\nx"),
		"200 1.1|Content-Length=1|length=x\n"},
	{"CONNECT", "CONNECT", S(OK "Content-Length: 5\r\n\r\n\x16\x03\x01"),
		"200 1.1|Content-Length=5|tunnel\n"},
	{"CONNECT refused", "CONNECT", S("HTTP/1.1 407 x\r\nContent-Length: 1\r\n\r\nx"),
		"407 1.1|Content-Length=1|length=x\n"},
	{"101 answers anything", "HEAD", S("HTTP/1.1 101 x\r\n\r\nabc"), "101 1.1|tunnel\n"},
	{"request without length", "", S(POST "\r\n" GET "\r\n"),
		"POST / 1.1|Host=h|none\nGET / 1.1|Host=h|none\n"},
	{"pipelining", "",
		S(GET "\r\n" POST "Content-Length: 2\r\n\r\nab" POST
		      "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n" GET "\r\n"),
		"GET / 1.1|Host=h|none\nPOST / 1.1|Host=h|Content-Length=2|length=ab\n"
		"POST / 1.1|Host=h|Transfer-Encoding=chunked|chunked=ab\nGET / 1.1|Host=h|none\n"},
	{"empty lines between", "", S(POST "Content-Length: 2\r\n\r\nab\r\n" GET "\r\n"),
		"POST / 1.1|Host=h|Content-Length=2|length=ab\nGET / 1.1|Host=h|none\n"},
	{"connection options", "", S(GET "Connection: TE,\tClose \r\n\r\n"),
		"GET / 1.1|Host=h|Connection=TE,\\x09Close|last|none\n"},
	{"connection options in two fields", "",
		S(GET "Connection: x\r\nConnection: close\r\n\r\n"),
		"GET / 1.1|Host=h|Connection=x|Connection=close|last|none\n"},
	{"close and keep-alive", "", S("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"),
		"GET / 1.0|Connection=keep-alive, close|last|none\n"},
	{"not an option", "", S(GET "Connection: closed\r\n\r\n"),
		"GET / 1.1|Host=h|Connection=closed|none\n"},
	{"cut in the head", "", S("GET / HTTP/1.1\r\nHost: h\r\nA: b"),
		"cut GET / 1.1|Host=h|A=b|none\n"},
	{"cut in a name", "", S("GET / HTTP/1.1\r\nHost: h\r\nAcc"),
		"cut GET / 1.1|Host=h|Acc=|!FIELD|none\n"},
	{"cut in a line end", "", S("GET / HTTP/1.1\r\nHost: h\r\nA: b\r"),
		"cut GET / 1.1|Host=h|A=b|none\n"},
	{"cut in the last line end", "", S("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r"),
		"cut GET / 1.1|Host=h|A=b|none\n"},
	{"cut in the start line", "", S("GET /a"), "cut GET /a 0.9|!VERSION|last|none\n"},
	{"cut in a status line", "", S("HTTP/1.1 20"), "cut 0 1.1|!START_LINE|none\n"},
	{"nothing but empty lines", "", S("\r\n\n\r\n"), "cut   0.9|!START_LINE|last|none\n"},
};

/* Chunked bodies: each is put behind a head, and a response behind it. */
static const struct stream chunks[] = {
	{"one", "", S("5\r\nhello\r\n0\r\n\r\n"), "hello"},
	{"many, either case", "", S("A\r\n0123456789\r\na\r\nabcdefghij\r\n0\r\n\r\n"),
		"0123456789abcdefghij"},
	{"data that looks like chunks", "", S("7\r\n0\r\n\r\n1\r\r\n0\r\n\r\n"),
		"0\\x0d\\x0a\\x0d\\x0a1\\x0d"},
	{"leading zeros", "", S("00000000000000000000000000000002\r\nab\r\n000\r\n\r\n"), "ab"},
	{"too many leading zeros", "", S("000000000000000000000000000000002\r\nab\r\n0\r\n\r\n"),
		"?|!CHUNK"},
	{"bare LF", "", S("2\nab\n0\n\n"), "ab|!CHUNK"},
	{"bare LF behind the data", "", S("2\r\nab\n0\r\n\r\n"), "ab|!CHUNK"},
	{"extensions", "", S("2;a;b=c\r\nab\r\n0 ; d = \"e;\\\"\\\\f\"\r\n\r\n"), "ab"},
	{"extensions with bare LF", "", S("2;a\nab\r\n0;\n\r\n"), "ab|!CHUNK"},
	{"string over a line end", "", S("2;a=\"\r\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"string over a bare LF", "", S("2;a=\"\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"escaped line end", "", S("2;a=\"\\\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"bare CR in an extension", "", S("2;a\rb\r\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"NUL in an extension", "", S("2;a\0b\r\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"blanks behind the size", "", S("2 \t \r\nab\r\n0\r\n\r\n"), "ab|!CHUNK"},
	{"text behind the size", "", S("2 x\r\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"blank before the size", "", S(" 2\r\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"no size", "", S("\r\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"extension without size", "", S(";a\r\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"0x", "", S("0x2\r\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"plus", "", S("+2\r\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"minus", "", S("-2\r\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"underscore", "", S("1_0\r\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"2^64", "", S("10000000000000000\r\nab"), "?|!CHUNK"},
	{"2^64 + 2", "", S("10000000000000002\r\nab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"more data than the size", "", S("2\r\nabc\r\n0\r\n\r\n"), "ab?|!CHUNK"},
	{"less data than the size", "", S("3\r\nab\r\n0\r\n\r\n"), "ab\\x0d|!CHUNK"},
	{"still less data", "", S("4\r\nab\r\n0\r\n\r\n"), "ab\\x0d\\x0a?|!CHUNK"},
	{"bare CR behind the data", "", S("2\r\nab\r0\r\n\r\n"), "ab?|!CHUNK"},
	{"CR CR LF behind the data", "", S("2\r\nab\r\r\n0\r\n\r\n"), "ab?|!CHUNK"},
	{"bare CR behind the size", "", S("2\rab\r\n0\r\n\r\n"), "?|!CHUNK"},
	{"trailers", "", S("0\r\nX-Sum: abc\r\nEmpty:\r\n\r\n"), ""},
	{"trailers with bare LF", "", S("0\r\nX-Sum: a:b\n\n"), ""},
	{"trailer that says length", "", S("0\r\nContent-Length: 100\r\n\r\n"), ""},
	{"trailer without colon", "", S("0\r\nabc\r\n\r\n"), "|!FIELD"},
	{"trailer without name", "", S("0\r\n: x\r\n\r\n"), "|!FIELD"},
	{"trailer with space in the name", "", S("0\r\na b: x\r\n\r\n"), "|!FIELD"},
	{"folded trailer", "", S("0\r\na: x\r\n y\r\n\r\n"), "|!FOLDING"},
	{"NUL in a trailer", "", S("0\r\na: \0\r\n\r\n"), "|!CONTROL"},
	{"bare CR in a trailer", "", S("0\r\na: x\ry\r\n\r\n"), "|!CONTROL"},
	{"CR CR LF in a trailer", "", S("0\r\na: x\r\r\n\r\n"), "|!CONTROL"},
	{"a line of CRs is no empty one", "", S("0\r\n\r\r\n\r\n"), "|!CONTROL"},
};

/* ---- feeding ---- */

static void run(
	struct reader *r, const struct stream *s, const size_t *cuts, size_t n_cuts, bool front)
{
	size_t from = 0;

	reader_init(r, s->method);
	r->front = front;
	for (size_t i = 0; i < n_cuts; i++) {
		reader_feed(r, s->bytes.p + from, cuts[i] - from);
		from = cuts[i];
	}
	reader_feed(r, s->bytes.p + from, s->bytes.len - from);
	reader_end(r);
}

/* The stream means `expected` whole, cut in two anywhere, and byte by byte. */
static void check_stream(const struct stream *s)
{
	static size_t every[READER_AREA];
	struct reader whole, split;

	run(&whole, s, NULL, 0, false);
	if (strcmp(whole.text.data, s->expected) != 0)
		ck_abort_msg(
			"%s:\n is       %s expected %s", s->name, whole.text.data, s->expected);
	for (size_t cut = 0; cut <= s->bytes.len + 1; cut++) {
		if (cut <= s->bytes.len) {
			run(&split, s, &cut, 1, cut % 2);
		} else {
			for (size_t i = 0; i < s->bytes.len; i++)
				every[i] = i;
			run(&split, s, every, s->bytes.len, false);
		}
		if (strcmp(split.text.data, whole.text.data) != 0)
			ck_abort_msg("%s, cut at %zu:\n is    %s whole %s", s->name, cut,
				split.text.data, whole.text.data);
		ck_assert_uint_eq(split.consumed, whole.consumed);
		reader_done(&split);
	}
	reader_done(&whole);
}

START_TEST(real_messages)
{
	check_stream(&real[_i]);
}
END_TEST

START_TEST(rule)
{
	check_stream(&rules[_i]);
}
END_TEST

START_TEST(chunked)
{
	static const char head[] = POST "Transfer-Encoding: chunked\r\n\r\n";
	static const char next[] = GET "\r\n";
	const struct stream *c = &chunks[_i];
	bool lost = strchr(c->expected, '?');
	struct buf bytes = BUF_INIT(1 << 16), expected = BUF_INIT(1 << 16);
	struct stream s = *c;

	ck_assert_int_eq(buf_append(&bytes, head, sizeof(head) - 1), 0);
	ck_assert_int_eq(buf_append(&bytes, c->bytes.p, c->bytes.len), 0);
	ck_assert_int_eq(buf_append(&bytes, next, sizeof(next) - 1), 0);
	s.bytes = span_of(bytes.data, bytes.len);
	ck_assert_int_eq(
		buf_printf(&expected, "POST / 1.1|Host=h|Transfer-Encoding=chunked|chunked=%s\n%s",
			c->expected, lost ? "" : "GET / 1.1|Host=h|none\n"),
		0);
	ck_assert_int_eq(buf_append(&expected, "", 1), 0);
	s.expected = expected.data;
	check_stream(&s);
	buf_done(&bytes);
	buf_done(&expected);
}
END_TEST

/* Every byte of a stream replaced by each of a few others: nothing is read outside, no promise
 * broken, whole and byte by byte mean the same. */
static void check_mutations(const struct stream *s)
{
	static const char others[] = "\0\t\n\r :;,0f\"\x7f\x80G/";
	char bytes[4096];
	struct stream mutated = *s;

	ck_assert_uint_le(s->bytes.len, sizeof(bytes));
	memcpy(bytes, s->bytes.p, s->bytes.len);
	mutated.bytes.p = bytes;
	for (size_t i = 0; i < s->bytes.len; i++) {
		for (size_t k = 0; k < sizeof(others) - 1; k++) {
			struct reader whole, split;
			size_t cuts[2] = {i, i + 1};

			bytes[i] = others[k];
			run(&whole, &mutated, NULL, 0, true);
			run(&split, &mutated, cuts, 2, false);
			ck_assert_str_eq(split.text.data, whole.text.data);
			ck_assert_uint_eq(split.consumed, whole.consumed);
			reader_done(&whole);
			reader_done(&split);
		}
		bytes[i] = s->bytes.p[i];
	}
}

START_TEST(mutations)
{
	check_mutations(&real[_i]);
}
END_TEST

START_TEST(rule_mutations)
{
	check_mutations(&rules[_i]);
}
END_TEST

/* ---- limits ---- */

/* A byte that cannot belong to the body is left for the next message. */
START_TEST(lost_keeps_next)
{
	static const char missing_end[] = "2\r\nabHTTP/1.1 200 OK\r\n\r\n";
	static const char missing_size[] = "HTTP/1.1 200 OK\r\n\r\n";
	struct http_body body;
	struct span data;

	http_body_init(&body, HTTP_BODY_CHUNKED, 0);
	ck_assert_uint_eq(http_body_feed(&body, missing_end, sizeof(missing_end) - 1, &data), 5);
	ck_assert(body.lost && !body.done);
	ck_assert(span_eq(data, SPAN("ab")));
	ck_assert_uint_eq(http_body_feed(&body, missing_end, 5, &data), 0);
	ck_assert(!http_body_end(&body));

	http_body_init(&body, HTTP_BODY_CHUNKED, 0);
	ck_assert_uint_eq(http_body_feed(&body, missing_size, sizeof(missing_size) - 1, &data), 0);
	ck_assert(body.lost);
	ck_assert_int_eq(body.fault, HTTP_FAULT_CHUNK);

	for (const char *c = ";\r\n \tG"; *c; c++) {
		http_body_init(&body, HTTP_BODY_CHUNKED, 0);
		ck_assert_uint_eq(http_body_feed(&body, c, 1, &data), 0);
		ck_assert(body.lost);
	}
}
END_TEST

/* How many bytes of a flood behind `start` are taken until the body is lost. */
static size_t flood(const char *start, char c)
{
	struct http_body body;
	struct span data;
	size_t n = 0;

	http_body_init(&body, HTTP_BODY_CHUNKED, 0);
	ck_assert_uint_eq(http_body_feed(&body, start, strlen(start), &data), strlen(start));
	while (!body.lost) {
		n += http_body_feed(&body, &c, 1, &data);
		ck_assert_uint_le(n, 100000);
	}
	ck_assert_int_ne(body.fault, HTTP_OK);
	return n;
}

START_TEST(chunk_limits)
{
	ck_assert_uint_eq(flood("1;", 'a'), 4096 - 2);
	ck_assert_uint_eq(flood("1;a=\"", '\\'), 4096 - 5);
	ck_assert_uint_eq(flood("1", ' '), 4096 - 1);
	ck_assert_uint_eq(flood("", '0'), 32);
	ck_assert_uint_eq(flood("", 'f'), 16);
	ck_assert_uint_eq(flood("0\r\n", 'a'), 65536);
	ck_assert_uint_eq(flood("0\r\na:\r\n", 'a'), 65536 - 4);
}
END_TEST

/* Every trailer line counts towards one limit, every chunk's line has its own. */
START_TEST(chunk_lines)
{
	struct http_body body;
	struct span data;
	size_t lines = 0;

	http_body_init(&body, HTTP_BODY_CHUNKED, 0);
	for (int i = 0; i < 100000; i++) {
		static const char chunk[] = "1;abcdefgh\r\nx\r\n";

		for (size_t at = 0; at < sizeof(chunk) - 1;)
			at += http_body_feed(&body, chunk + at, sizeof(chunk) - 1 - at, &data);
		ck_assert(!body.lost);
	}
	ck_assert_uint_eq(http_body_feed(&body, "0\r\n", 3, &data), 3);
	while (!body.lost) {
		http_body_feed(&body, "abc: d\r\n", 8, &data);
		lines++;
	}
	ck_assert_uint_eq(lines, 65536 / 8 + 1);
}
END_TEST

START_TEST(too_many_fields)
{
	static const char bytes[] = POST "A: b\r\n c\r\nContent-Length: 3\r\nB: d\r\n e\r\n\r\n";
	struct http_field fields[3];
	struct http_head head;
	uint64_t length = 0;

	for (uint32_t max = 0; max <= ARRAY_SIZE(fields); max++) {
		head = (struct http_head){.fields = max ? fields : NULL, .max_fields = max};
		memset(fields, 0xee, sizeof(fields));
		http_head_parse(bytes, sizeof(bytes) - 1, &head);
		ck_assert_uint_eq(head.n_fields, max);
		ck_assert_uint_eq(head.size, sizeof(bytes) - 1);
		ck_assert_int_eq(
			head.fault, max < 2 ? HTTP_FAULT_TOO_MANY_FIELDS : HTTP_FAULT_FOLDING);
		ck_assert_int_eq(head.known[HTTP_HOST], max > 0 ? 0 : -1);
		ck_assert_int_eq(head.known[HTTP_CONTENT_LENGTH], max > 2 ? 2 : -1);
		/* the length counts, whether there was room for it or not */
		ck_assert_int_eq(http_framing(bytes, &head, SPAN(""), &length), HTTP_BODY_LENGTH);
		ck_assert_uint_eq(length, 3);
		for (uint32_t i = max; i < ARRAY_SIZE(fields); i++)
			ck_assert_uint_eq(fields[i].name.off, 0xeeeeeeee);
	}
}
END_TEST

/* An index that does not fit is not there; what the field says counts all the same. */
START_TEST(known_beyond_index)
{
	static const char start[] = "POST / HTTP/1.1\nHost: h\n";
	static const char end[] = "Content-Length: 3\n\n";
	const uint32_t max = INT16_MAX + 3;
	struct http_field *fields = calloc(max, sizeof(*fields));
	struct http_head head = {.fields = fields, .max_fields = max};
	struct buf b = BUF_INIT(1 << 20);
	uint64_t length = 0;

	ck_assert_ptr_nonnull(fields);
	for (uint32_t n = INT16_MAX - 1; n <= INT16_MAX; n++) {
		b.len = 0;
		ck_assert_int_eq(buf_append(&b, start, sizeof(start) - 1), 0);
		for (uint32_t i = 0; i < n; i++)
			ck_assert_int_eq(buf_append(&b, "A:\n", 3), 0);
		ck_assert_int_eq(buf_append(&b, end, sizeof(end) - 1), 0);
		http_head_parse(b.data, b.len, &head);
		ck_assert_uint_eq(head.n_fields, n + 2);
		ck_assert_int_eq(head.known[HTTP_CONTENT_LENGTH], n < INT16_MAX ? (int)n + 1 : -1);
		ck_assert_int_eq(http_framing(b.data, &head, SPAN(""), &length), HTTP_BODY_LENGTH);
		ck_assert_uint_eq(length, 3);
	}
	buf_done(&b);
	free(fields);
}
END_TEST

START_TEST(known_fields)
{
	static const char bytes[] =
		POST "EXPECT: a\r\nupgrade: b\r\nConnection: c\r\nconnection: d\r\nX-Other: e\r\n"
		     "Content-type: f\r\nCONTENT-ENCODING: g\r\nTransfer-encoding: chunked\r\n"
		     "Content-Length: 0\r\nHosts: x\r\nExpecT-: x\r\nContent-Typo: x\r\n\r\n";
	static const int expected[HTTP_KNOWN_MAX] = {
		[HTTP_HOST] = 0,
		[HTTP_EXPECT] = 1,
		[HTTP_UPGRADE] = 2,
		[HTTP_CONNECTION] = 3,
		[HTTP_CONTENT_TYPE] = 6,
		[HTTP_CONTENT_ENCODING] = 7,
		[HTTP_TRANSFER_ENCODING] = 8,
		[HTTP_CONTENT_LENGTH] = 9,
	};
	struct http_field fields[32];
	struct http_head head = {.fields = fields, .max_fields = ARRAY_SIZE(fields)};

	http_head_parse(bytes, sizeof(bytes) - 1, &head);
	for (int k = 0; k < HTTP_KNOWN_MAX; k++)
		ck_assert_int_eq(head.known[k], expected[k]);
	ck_assert_uint_eq(head.n_fields, 13);
}
END_TEST

/* Names that differ from a known one in a single byte are not that one. */
START_TEST(known_fields_near)
{
	static const char *const names[] = {"host", "expect", "upgrade", "connection",
		"content-type", "content-length", "content-encoding", "transfer-encoding"};

	for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
		size_t len = strlen(names[n]);

		for (size_t i = 0; i < len; i++) {
			for (int c = 0; c < 256; c++) {
				struct http_field fields[4];
				struct http_head head = {.fields = fields, .max_fields = 4};
				char bytes[64] = "\nGET / HTTP/1.0\n";
				size_t at = strlen(bytes);
				bool same, any = false;

				memcpy(bytes + at, names[n], len);
				bytes[at + i] = (char)c;
				same = span_eq_nocase(
					span_of(bytes + at, len), span_of(names[n], len));
				memcpy(bytes + at + len, ":x\n\n", 4);
				http_head_parse(bytes, at + len + 4, &head);
				for (int k = 0; k < HTTP_KNOWN_MAX; k++)
					any |= head.known[k] >= 0;
				ck_assert_msg(any == same, "%s, byte %zu = %d", names[n], i, c);
			}
		}
	}
}
END_TEST

/* 64 KiB of header fields: parsed, and searched once however they come. */
START_TEST(long_head)
{
	struct buf b = BUF_INIT(1 << 20);
	struct http_field *fields = calloc(8192, sizeof(*fields));
	struct http_head head = {.fields = fields, .max_fields = 8192};
	size_t scanned = 0, size = 0, searched = 0;
	int n = 0;

	ck_assert_ptr_nonnull(fields);
	ck_assert_int_eq(buf_printf(&b, "GET / HTTP/1.1\r\nHost: h\r\n"), 0);
	while (b.len < 65536) {
		ck_assert_int_eq(buf_printf(&b, "Name-%d: value %d\r\n", n, n * 7), 0);
		n++;
	}
	ck_assert_int_eq(buf_printf(&b, "\r\n"), 0);
	for (size_t len = 1; len <= b.len; len++) {
		size_t from = scanned;

		size = http_head_end(b.data, len, &scanned);
		ck_assert_uint_eq(size, len == b.len ? b.len : 0);
		/* what this call may have looked at */
		searched += len - from;
	}
	ck_assert_uint_le(searched, 4 * b.len);
	http_head_parse(b.data, size, &head);
	ck_assert_int_eq(head.fault, HTTP_OK);
	ck_assert_uint_eq(head.n_fields, (uint32_t)n + 1);
	for (int i = 0; i < n; i++) {
		struct http_field *f = &fields[i + 1];
		char name[32], value[32];

		snprintf(name, sizeof(name), "Name-%d", i);
		snprintf(value, sizeof(value), "value %d", i * 7);
		ck_assert(span_eq(span_of(b.data + f->name.off, f->name.len), span_str(name)));
		ck_assert(span_eq(span_of(b.data + f->value.off, f->value.len), span_str(value)));
	}
	buf_done(&b);
	free(fields);
}
END_TEST

/* A flood of line ends is searched once, too. */
START_TEST(head_end_floods)
{
	static const char *const floods[] = {"\n", "\r\n", "\r", "\n ", "\n\r \n", "\r\r\n", " "};
	static char bytes[20000];
	const char *flood_bytes = floods[_i];
	size_t n = strlen(flood_bytes), scanned = 0, searched = 0;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = flood_bytes[i % n];
	for (size_t len = 1; len <= sizeof(bytes); len++) {
		size_t from = scanned;

		if (http_head_end(bytes, len, &scanned) > 0)
			break;
		ck_assert_uint_ge(scanned, from);
		searched += len - from;
	}
	ck_assert_uint_le(searched, 4 * sizeof(bytes));
}
END_TEST

/* ---- gaps ---- */

static void feed_all(struct http_body *body, struct span bytes)
{
	struct span data;

	while (bytes.len > 0 && !body->done && !body->lost) {
		size_t n = http_body_feed(body, bytes.p, bytes.len, &data);

		bytes = span_of(bytes.p + n, bytes.len - n);
	}
	ck_assert_uint_eq(bytes.len, 0);
}

START_TEST(gap_in_length)
{
	struct http_body body;
	struct span data;

	http_body_init(&body, HTTP_BODY_LENGTH, 10);
	ck_assert_uint_eq(http_body_gap(&body, 0), 0);
	ck_assert_uint_eq(http_body_feed(&body, "ab", 2, &data), 2);
	ck_assert_uint_eq(http_body_gap(&body, 3), 3);
	ck_assert(!body.done && !body.lost);
	ck_assert_uint_eq(http_body_feed(&body, "fghijkl", 7, &data), 5);
	ck_assert(body.done && !body.lost);

	http_body_init(&body, HTTP_BODY_LENGTH, 10);
	ck_assert_uint_eq(http_body_gap(&body, 10), 10);
	ck_assert(body.done && !body.lost);

	http_body_init(&body, HTTP_BODY_LENGTH, 10);
	ck_assert_uint_eq(http_body_gap(&body, UINT64_MAX), 10);
	ck_assert(body.done && !body.lost);
	ck_assert_uint_eq(http_body_gap(&body, 1), 0);
}
END_TEST

START_TEST(gap_in_close)
{
	struct http_body body;

	http_body_init(&body, HTTP_BODY_CLOSE, 0);
	ck_assert_uint_eq(http_body_gap(&body, UINT64_MAX), UINT64_MAX);
	ck_assert(!body.done && !body.lost);
	ck_assert(http_body_end(&body));
	ck_assert(body.done);
	ck_assert_uint_eq(http_body_gap(&body, 1), 0);
}
END_TEST

START_TEST(gap_in_chunk)
{
	struct http_body body;

	/* inside the data */
	http_body_init(&body, HTTP_BODY_CHUNKED, 0);
	feed_all(&body, SPAN("a\r\n01"));
	ck_assert_uint_eq(http_body_gap(&body, 5), 5);
	ck_assert(!body.lost);
	feed_all(&body, SPAN("789\r\n0\r\n\r\n"));
	ck_assert(body.done);

	/* to the end of the data */
	http_body_init(&body, HTTP_BODY_CHUNKED, 0);
	feed_all(&body, SPAN("a\r\n01"));
	ck_assert_uint_eq(http_body_gap(&body, 8), 8);
	ck_assert(!body.lost);
	feed_all(&body, SPAN("\r\n0\r\n\r\n"));
	ck_assert(body.done);

	/* the line end behind the data, or half of it, or its other half */
	for (size_t n = 9; n <= 10; n++) {
		http_body_init(&body, HTTP_BODY_CHUNKED, 0);
		feed_all(&body, SPAN("a\r\n01"));
		ck_assert_uint_eq(http_body_gap(&body, n), 8);
		ck_assert(!body.lost);
		feed_all(&body, n == 9 ? SPAN("\n0\r\n\r\n") : SPAN("0\r\n\r\n"));
		ck_assert(body.done);
		ck_assert_int_eq(body.fault, HTTP_OK);
	}
	http_body_init(&body, HTTP_BODY_CHUNKED, 0);
	feed_all(&body, SPAN("a\r\n0123456789\r"));
	ck_assert_uint_eq(http_body_gap(&body, 1), 0);
	feed_all(&body, SPAN("0\r\n\r\n"));
	ck_assert(body.done);

	/* beyond it */
	http_body_init(&body, HTTP_BODY_CHUNKED, 0);
	feed_all(&body, SPAN("a\r\n01"));
	ck_assert_uint_eq(http_body_gap(&body, 11), 8);
	ck_assert(body.lost && !body.done);
	ck_assert_int_eq(body.fault, HTTP_OK);
	ck_assert(!http_body_end(&body));
}
END_TEST

/* A gap anywhere but in data and at its end loses the body. */
START_TEST(gap_in_chunk_framing)
{
	static const char bytes[] = "2;a=\"\\b\"\r\nxy\r\n0\r\na: b\r\n\r\n";

	for (size_t cut = 0; cut < sizeof(bytes) - 1; cut++) {
		struct http_body body;
		bool in_data = cut == 10 || cut == 11, at_end = cut == 12 || cut == 13;

		http_body_init(&body, HTTP_BODY_CHUNKED, 0);
		feed_all(&body, span_of(bytes, cut));
		ck_assert_uint_eq(http_body_gap(&body, 1), in_data);
		ck_assert(body.lost == !(in_data || at_end));
	}
}
END_TEST

START_TEST(ends)
{
	static const struct {
		enum http_framing framing;
		bool done, complete;
	} cases[] = {
		{HTTP_BODY_NONE, true, true},
		{HTTP_BODY_TUNNEL, true, true},
		{HTTP_BODY_LENGTH, false, false},
		{HTTP_BODY_CHUNKED, false, false},
		{HTTP_BODY_CLOSE, false, true},
	};
	struct http_body body;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		http_body_init(&body, cases[i].framing, 5);
		ck_assert(body.done == cases[i].done);
		ck_assert(http_body_end(&body) == cases[i].complete);
		ck_assert(body.done == cases[i].complete);
	}
	/* no length is a complete one */
	http_body_init(&body, HTTP_BODY_LENGTH, 0);
	ck_assert(body.done);
}
END_TEST

/* ---- what it looks like ---- */

#define O HTTP_LOOKS_OTHER
#define M HTTP_LOOKS_MAYBE
#define Q HTTP_LOOKS_REQUEST
#define R HTTP_LOOKS_RESPONSE

static const struct {
	struct span bytes;
	enum http_looks any, known;
} looks[] = {
	{S(""), M, M},
	{S("\r"), M, M},
	{S("\r\n"), M, M},
	{S("\r\n\n\r\nGET /"), Q, Q},
	{S("\rG"), O, O},
	{S("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"), O, O},
	{S("G"), M, M},
	{S("GET"), M, M},
	{S("GET "), M, M},
	{S("GET /"), Q, Q},
	{S("GET  "), M, O},
	{S("GET  /"), Q, O},
	{S("GET\t/"), Q, O},
	{S("GET http://"), Q, Q},
	{S("CONNECT [::1]:443"), Q, Q},
	{S("CONNECT 10.0.0.1:443"), Q, Q},
	{S("OPTIONS * "), Q, Q},
	{S("GET ?"), Q, O},
	{S("GET \x80"), O, O},
	{S("GET \r\n"), O, O},
	{S("GET\r\n"), O, O},
	{S("GETX"), M, O},
	{S("GETX /"), Q, O},
	{S("get /"), Q, O},
	{S("BREW /"), Q, O},
	{S("PRI * HTTP/2.0"), Q, O},
	{S(" GET /"), O, O},
	{S("/"), O, O},
	{S("\x16\x03\x01"), O, O},
	{S("{\"a\": 1}"), O, O},
	{S("H"), M, M},
	{S("HEAD /"), Q, Q},
	{S("HT"), M, M},
	{S("HTTP"), M, M},
	{S("HTTP/"), M, M},
	{S("HTTP/1"), R, M},
	{S("HTTP/1.1"), R, M},
	{S("HTTP/1.1 200"), R, M},
	{S("HTTP/1.1 200 "), R, R},
	{S("HTTP/1.0 404\r\n"), R, R},
	{S("HTTP/1.0 404\n"), R, R},
	{S("HTTP/1.1 2000"), R, O},
	{S("HTTP/1.1  20"), R, O},
	{S("HTTP/2 200"), R, O},
	{S("http/1.1"), R, O},
	{S("HTTP/x"), O, O},
	{S("HTTP GET"), Q, O},
	{S("PROPFIND /"), Q, Q},
	{S("UPDATEREDIRECTREF /"), Q, Q},
	{S("UPDATEREDIRECTRE /"), Q, O},
	{S("UPDATE /"), Q, Q},
	{S("BASELINE-CONTROL /"), Q, Q},
	{S("VERSION-CONTROL /"), Q, Q},
	{S("CO"), M, M},
	{S("COP"), M, M},
	{S("COQ"), M, O},
};

START_TEST(looks_like)
{
	for (size_t i = 0; i < ARRAY_SIZE(looks); i++) {
		struct span b = looks[i].bytes;

		ck_assert_msg(
			http_looks_like(reader_guard(b.p, b.len, false), b.len) == looks[i].any,
			"'%s'", b.p);
		ck_assert_msg(http_looks_like_known(reader_guard(b.p, b.len, false), b.len) ==
				      looks[i].known,
			"known '%s'", b.p);
	}
}
END_TEST

/* An answer stays, however many bytes follow; MAYBE does not last. */
START_TEST(looks_like_is_final)
{
	enum http_looks (*const functions[])(const char *, size_t) = {
		http_looks_like, http_looks_like_known};

	for (size_t f = 0; f < ARRAY_SIZE(functions); f++) {
		for (size_t i = 0; i < ARRAY_SIZE(looks); i++) {
			struct span b = looks[i].bytes;
			enum http_looks before = HTTP_LOOKS_MAYBE;
			static const char more[] = "\n\r /AG1.Hx-";

			for (size_t len = 0; len <= b.len; len++) {
				enum http_looks now =
					functions[f](reader_guard(b.p, len, false), len);

				ck_assert(before == HTTP_LOOKS_MAYBE || now == before);
				before = now;
			}
			for (size_t k = 0; before != HTTP_LOOKS_MAYBE && k < sizeof(more); k++) {
				char longer[64];

				memcpy(longer, b.p, b.len);
				longer[b.len] = more[k];
				ck_assert_int_eq(functions[f](longer, b.len + 1), before);
			}
		}
	}
	for (int c = 0; c < 256; c++) {
		char many[256];

		memset(many, c, sizeof(many));
		ck_assert_int_eq(http_looks_like(many, sizeof(many)), HTTP_LOOKS_OTHER);
		ck_assert_int_eq(http_looks_like_known(many, sizeof(many)), HTTP_LOOKS_OTHER);
	}
}
END_TEST

START_TEST(methods)
{
	static const char *const names =
		"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY "
		"DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF "
		"MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PROPFIND PROPPATCH PUT QUERY "
		"REBIND REPORT "
		"SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF "
		"VERSION-CONTROL ";
	int n = 0;

	for (const char *p = names; *p; n++) {
		size_t len = strcspn(p, " ") + 1;
		char bytes[32];

		memcpy(bytes, p, len);
		bytes[len] = '/';
		for (size_t i = 0; i <= len; i++)
			ck_assert_int_eq(http_looks_like_known(bytes, i), HTTP_LOOKS_MAYBE);
		ck_assert_int_eq(http_looks_like_known(bytes, len + 1), HTTP_LOOKS_REQUEST);
		p += len;
	}
	ck_assert_int_eq(n, 39);
}
END_TEST

/* ---- the search under it all ---- */

static bool stops_naive(unsigned char c, enum http_stop stop)
{
	if (stop == HTTP_TO_BLANK && (c == ' ' || c == '\t'))
		return true;
	return (c < 0x20 && c != '\t') || c == 0x7f;
}

START_TEST(find)
{
	for (size_t len = 0; len <= 50; len++) {
		for (size_t at = 0; at <= len; at++) {
			for (int c = 0; c < 256; c++) {
				enum http_stop stop = c % 2 ? HTTP_TO_BLANK : HTTP_TO_CONTROL;

				for (int k = 0; k < 2; k++, stop = (enum http_stop) !stop) {
					char bytes[64];
					const char *p;
					size_t from = at < 20 ? 0 : at - 20, expected = len;

					memset(bytes, c % 3 ? 'x' : 0xa9, len);
					if (at < len)
						bytes[at] = (char)c;
					if (at < len && stops_naive((unsigned char)c, stop))
						expected = at;
					p = reader_guard(bytes, len, c % 2);
					ck_assert_uint_eq(http_find(p, from, len, stop), expected);
					ck_assert_uint_eq(
						http_find_portable(p, from, len, stop), expected);
					ck_assert_uint_eq(http_find(p, len, len, stop), len);
				}
			}
		}
	}
}
END_TEST

START_TEST(tokens)
{
	static const char token[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "abcdefghijklmnopqrstuvwxyz";

	for (size_t len = 1; len <= 40; len++) {
		for (size_t at = 0; at < len; at++) {
			for (int c = 0; c < 256; c++) {
				bool is = c != 0 && strchr(token, c);
				char bytes[64];

				memset(bytes, at % 2 ? 'x' : '_', len);
				bytes[at] = (char)c;
				ck_assert_uint_eq(
					http_skip_token(reader_guard(bytes, len, false), 0, len),
					is ? len : at);
			}
		}
	}
}
END_TEST

START_TEST(fault_texts)
{
	ck_assert_ptr_null(http_fault_text(HTTP_OK));
	ck_assert_ptr_null(http_fault_text(HTTP_FAULT_MAX));
	for (int i = HTTP_OK + 1; i < HTTP_FAULT_MAX; i++) {
		const char *text = http_fault_text((enum http_fault)i);

		ck_assert_ptr_nonnull(text);
		for (const char *c = text; *c; c++)
			ck_assert((*c >= 'a' && *c <= 'z') || *c == ' ' || *c == '-');
		for (int k = HTTP_OK + 1; k < i; k++)
			ck_assert_str_ne(text, http_fault_text((enum http_fault)k));
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("http");
	TCase *messages = tcase_create("messages"), *parts = tcase_create("parts");
	SRunner *runner;
	int failed;

	tcase_set_timeout(messages, 120);
	tcase_add_loop_test(messages, real_messages, 0, ARRAY_SIZE(real));
	tcase_add_loop_test(messages, rule, 0, ARRAY_SIZE(rules));
	tcase_add_loop_test(messages, chunked, 0, ARRAY_SIZE(chunks));
	tcase_add_loop_test(messages, mutations, 0, ARRAY_SIZE(real));
	tcase_add_loop_test(messages, rule_mutations, 0, ARRAY_SIZE(rules));
	suite_add_tcase(suite, messages);
	tcase_set_timeout(parts, 120);
	tcase_add_test(parts, lost_keeps_next);
	tcase_add_test(parts, chunk_limits);
	tcase_add_test(parts, chunk_lines);
	tcase_add_test(parts, too_many_fields);
	tcase_add_test(parts, known_beyond_index);
	tcase_add_test(parts, known_fields);
	tcase_add_test(parts, known_fields_near);
	tcase_add_test(parts, long_head);
	tcase_add_loop_test(parts, head_end_floods, 0, 7);
	tcase_add_test(parts, gap_in_length);
	tcase_add_test(parts, gap_in_close);
	tcase_add_test(parts, gap_in_chunk);
	tcase_add_test(parts, gap_in_chunk_framing);
	tcase_add_test(parts, ends);
	tcase_add_test(parts, looks_like);
	tcase_add_test(parts, looks_like_is_final);
	tcase_add_test(parts, methods);
	tcase_add_test(parts, find);
	tcase_add_test(parts, tokens);
	tcase_add_test(parts, fault_texts);
	suite_add_tcase(suite, parts);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
